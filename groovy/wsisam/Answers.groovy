package wsisam

import qupath.fx.utils.FXUtils
import qupath.lib.gui.QuPathGUI
import qupath.lib.images.ImageData
import qupath.lib.objects.*
import qupath.lib.objects.hierarchy.PathObjectHierarchy
import qupath.lib.regions.ImagePlane
import qupath.lib.roi.ROIs

import static wsisam.Drawing.*
import static wsisam.Json.*

/** Puts the server's answers into images. */
class Answers {
    private final QuPathGUI gui = QuPathGUI.instance

    /**
     * Adds answers to an image without an event: each below its parent, in place of what it replaces, unless that
     * changed since it was sent. Returns what was added and taken away.
     */
    static List<PathObject> add(PathObjectHierarchy hierarchy, List<Answer> answers, Map<String, String> sent) {
        def byId = objectsById(hierarchy)
        def changed = []
        for (answer in answers) {
            def replaced = (answer.feature.replaces ?: []).collect { byId[it] }
                .findAll { it != null && sent[it.ID.toString()] == textOf(it) }
            def result = answer.result
            def id = result?.ID?.toString()
            def sources = answer.feature.sources
            def isDeleted = sources && !sources.any { it in byId }
            if (result != null && (isDeleted || (id in byId && !(byId[id] in replaced))))
                continue
            def parent = byId[answer.feature.parent] ?: replaced.find()?.parent ?: hierarchy.rootObject
            def isSelected = replaced.any { hierarchy.selectionModel.isSelected(it) }
            replaced.each { hierarchy.removeObjectWithoutUpdate(it, true) }
            changed.addAll(replaced)
            if (result == null)
                continue
            hierarchy.addObjectBelowParent(parent, result, false)
            if (isSelected)
                hierarchy.selectionModel.setSelectedObject(result)
            byId[id] = result
            changed << result
        }
        return changed
    }

    /**
     * Shows the results that have arrived while more are to come.
     *
     * Each event that is not "changing" makes an undo step, but only such an event, or an insertion
     * without one, makes the hierarchy update where its objects are.
     */
    void showArrived(Request request) {
        request.isShowing.set(false)
        int before = request.changed.size()
        take(request)
        def changed = request.changed.drop(before)
        if (!changed)
            return
        def hierarchy = request.imageData.hierarchy
        def nothing = PathObjects.createDetectionObject(ROIs.createPointsROI(0, 0, ImagePlane.defaultPlane))
        hierarchy.insertPathObject(nothing, false)
        hierarchy.removeObjectWithoutUpdate(nothing, false)
        hierarchy.fireObjectsChangedEvent(this, changed, true)
    }

    /** Adds the remaining results, and makes one undo step of the whole request. */
    void finish(Request request) {
        take(request)
        if (request.kept)
            Thread.startDaemon('wsi-sam') { saveKept(request) }
        // QuPath 0.5.1 makes no undo step for events without objects.
        if (request.changed)
            request.imageData.hierarchy.fireObjectsChangedEvent(this, request.changed, false)
    }

    /** Takes the answers that have come; those for an image that is not shown any more are kept. */
    List<Answer> take(Request request) {
        def answers = []
        for (Answer answer; (answer = request.arrived.poll()) != null;) {
            request.done++
            def state = answer.feature.state
            if (state == 'skipped')
                request.skipped++
            if (answer.result != null || state in ['answered', 'reviewed'])
                request.answered++
            else if (state != 'gone')
                request.reasons << answer.feature.properties.reason
            answers << answer
        }
        if (gui == null || viewerOf(request.imageData) != null)
            request.changed.addAll(add(request.imageData.hierarchy, answers, request.sent))
        else
            request.kept.addAll(answers)
        return answers
    }

    /** Saves the answers for an image that was closed since. */
    private void saveKept(Request request) {
        def project = gui.project
        def entry = project?.getEntry(request.imageData)
        def told = "${request.kept.size()} outlines came after their image was closed, and it is in no project: " +
            'open it and segment it again.'
        if (entry != null) {
            addToEntry(project, entry.ID, request.kept, request.sent)
            told = "${request.kept.size()} answers were saved in ${entry.imageName}."
        }
        Say.inform(told)
    }

    /** Adds answers to an image of a project, whether it is shown or not. */
    void addToEntry(project, String id, List<Answer> answers, Map<String, String> sent) {
        def isDone = FXUtils.callOnApplicationThread {
            def hierarchy = shownImages(project)[id]?.hierarchy
            def changed = hierarchy == null ? [] : add(hierarchy, answers, sent)
            if (changed)
                hierarchy.fireObjectsChangedEvent(this, changed, false)
            hierarchy != null
        }
        if (isDone)
            return
        def entry = project.imageList.find { it.ID == id }
        def imageData = entry.readImageData()
        add(imageData.hierarchy, answers, sent)
        entry.saveImageData(imageData)
        imageData.server.close()
    }

    /** Gives the images of a project that the viewers show, by their ids. */
    Map<String, ImageData> shownImages(project) {
        return gui.allViewers*.imageData.findAll { it != null && project.getEntry(it) != null }
            .collectEntries { [project.getEntry(it).ID, it] }
    }
}
