/**
 * The commands that wsi_sam.groovy puts into QuPath's menu. For QuPath 0.5.1 to 0.7.0.
 *
 * They send what is drawn to the server, and add its answers to the image. Which points belong to which
 * object, what is answered already and what an answer replaces is for the server to say.
 */

import com.google.gson.*
import groovy.transform.Field
import java.awt.BasicStroke
import java.awt.Color
import java.awt.Graphics2D
import java.awt.Rectangle
import java.awt.Shape
import java.awt.image.BufferedImage
import java.net.http.*
import java.net.http.HttpRequest.BodyPublishers
import java.net.http.HttpResponse.BodyHandlers
import java.nio.file.Files
import java.security.KeyStore
import java.security.cert.CertificateFactory
import java.time.Duration
import java.util.concurrent.*
import java.util.concurrent.atomic.AtomicBoolean
import javafx.animation.PauseTransition
import javafx.application.Platform
import javafx.beans.value.ChangeListener
import javafx.event.EventHandler
import javafx.geometry.Insets
import javafx.geometry.Pos
import javafx.scene.Scene
import javafx.scene.control.*
import javafx.scene.input.*
import javafx.scene.layout.*
import javafx.stage.Stage
import javax.imageio.ImageIO
import javax.net.ssl.*
import org.slf4j.*
import qupath.fx.dialogs.*
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.prefs.PathPrefs
import qupath.lib.gui.viewer.QuPathViewer
import qupath.lib.gui.viewer.overlays.AbstractOverlay
import qupath.lib.gui.viewer.tools.PathTools
import qupath.lib.images.ImageData
import qupath.lib.images.servers.*
import qupath.lib.images.servers.ImageServerBuilder.ServerBuilder
import qupath.lib.io.GsonTools
import qupath.lib.objects.*
import qupath.lib.objects.classes.PathClass
import qupath.lib.objects.hierarchy.PathObjectHierarchy
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.plugins.workflow.DefaultScriptableWorkflowStep
import qupath.lib.regions.*
import qupath.lib.roi.*
import qupath.lib.roi.interfaces.ROI

@Field final String TITLE = 'WSI-SAM'
@Field final int PROTOCOL = 2
@Field final String START = 'Start it in a terminal with `wsisam-qupath serve` and try again.'
@Field final String LOOK = 'See View > Show log or its terminal, and try again.'
@Field final String SETTINGS = 'Extensions > WSI-SAM > Settings'
@Field final String HELP = 'https://github.com/wsisam-qupath/wsisam-qupath/blob/main/docs/qupath.md'
@Field final String OUTSIDE = 'Ignore*'
@Field final String PROMPT_KEY = 'wsisam_prompt_id'
@Field final String RECORD_SEPARATOR = '\u001e'
@Field final Duration LONGEST_WAIT = Duration.ofMinutes(5)
@Field final int PAUSE_MS = 20, REST_MS = 300, RETRY_MS = 3000
@Field final int PROMPTS_WITH_PIXELS = 8
@Field final double REACH_UM = 500
@Field final Map<String, Double> SIZES_UM =
    ['unknown size': null, 'nucleus (10 µm)': 10d, 'gland (60 µm)': 60d, 'region (300 µm)': 300d]
@Field final Map<String, Integer> MINUTES =
    ['as long as the annotations are worth': null, 'about 10 minutes': 10, 'about an hour': 60, 'about 8 hours': 480]

@Field final Logger logger = LoggerFactory.getLogger('wsi-sam')
@Field final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create()
@Field final Gson GEOJSON = GsonTools.instance
@Field final QuPathGUI gui = QuPathGUI.instance
/** What the user chose, each kept by QuPath. */
@Field final Map chosen = [
    Server: '', Token: '', Certificate: '', Class: '', ObjectType: 'detection', ObjectSize: 'unknown size',
    Model: '', Preview: 'yes'
].collectEntries { name, value -> [name, PathPrefs.createPersistentPreference("wsisam$name", value as String)] }

@Field HttpClient client
@Field String clientCertificate
/** Limits of a request to each server that fits these scripts, by its address. */
@Field final Map<String, JsonObject> limitsOf = new ConcurrentHashMap<>()
@Field Process ownServer

/** State of live mode for the image that it watches. */
@Field ImageData liveImage
@Field Object liveItem
@Field PathObject liveRoot
@Field PauseTransition livePause, liveRest
@Field Map<String, List> liveSeen = [:]
@Field Set<String> liveDirty = []
@Field Rectangle liveArea
@Field Request liveRequest, livePreview
@Field boolean isLiveFailed = false, isOwnEvent = false
/** When the mouse was released, until the outline is on the screen; ns. */
@Field long released
/** Undo steps that QuPath has made since the last answer was shown. */
@Field int openSteps = 0
@Field String liveState = ''
/** The last answer with what else it may be, by size; the outline that further clicks correct. */
@Field List<JsonObject> candidates = []
@Field String candidateId, refinedId
@Field Double sizeHint
@Field List<Double> cursor
@Field QuPathViewer liveViewer
@Field Label liveLabel
@Field Outlines outlines
@Field PathClass classInside
@Field UUID idInside
/** What each search has found in an image since it was opened. */
@Field final Map<ImageData, List<List<PathObject>>> finds = new WeakHashMap<>()

/** What was asked of the server, and its answers. */
class Request {
    ImageData imageData
    Map select = [:]                    // which prompts are answered
    String refinedId                    // of the outline that points correct
    Map options = [:]
    volatile String doing = 'prompts'
    volatile String waits               // for what, until the server answers
    boolean isLive
    Map<String, String> sent = [:]      // objects as they were when they were sent, by their ids
    List<Map> planes = []               // of each plane: what is drawn there, with its features
    volatile int done, total
    volatile boolean isCancelled
    volatile CompletableFuture response
    volatile Closeable body
    final Queue<JsonObject> arrived = new ConcurrentLinkedQueue<>()
    final AtomicBoolean isShowing = new AtomicBoolean()
    final List<PathObject> changed = [] // touched by one thread only
    final List<JsonObject> kept = []    // answers for an image that is not shown any more
    final List<String> reasons = []
    int answered

    /** Closes the connection, which tells the server to stop. */
    void cancel() {
        isCancelled = true
        response?.cancel(true)
        body?.close()
    }
}

/** Draws results so that nobody overlooks them, at every magnification, and what a click would give. */
class Outlines extends AbstractOverlay {
    List<PathObject> results = []
    Shape preview
    Closure onPaint

    Outlines(options) { super(options) }

    void paintOverlay(Graphics2D g2d, ImageRegion region, double downsample, ImageData<BufferedImage> imageData,
                      boolean isComplete) {
        for (result in results)
            if (result.parent != null && region.intersects(ImageRegion.createInstance(result.ROI)))
                draw(g2d, RoiTools.getShape(result.ROI), colorOf(result), downsample, 40)
        if (preview != null)
            draw(g2d, preview, 0x00e5ff, downsample, 25)
        onPaint?.call()
    }

    int colorOf(PathObject result) {
        return result.pathClass?.color ?: 0xffd700
    }

    void draw(Graphics2D g2d, Shape shape, int rgb, double downsample, int alpha) {
        g2d.setColor(new Color(rgb >> 16 & 255, rgb >> 8 & 255, rgb & 255, alpha))
        g2d.fill(shape)
        g2d.setColor(new Color(rgb >> 16 & 255, rgb >> 8 & 255, rgb & 255, 230))
        g2d.setStroke(new BasicStroke((3 * downsample) as float))
        g2d.draw(shape)
    }
}

/** An error that the user can fix; its message says how. */
class ServerException extends IOException {
    ServerException(String message) { super(message) }
}

// Commands

void segmentSelected(ImageData imageData) {
    def ids = imageData.hierarchy.selectionModel.selectedObjects*.ID*.toString()
    if (ids)
        segment(imageData, [ids: ids])
    else
        inform('Select a rectangle, points or a rough outline first. ' +
            'To correct a result, use Refine selected with points.')
}

void segmentAll(ImageData imageData) {
    segment(imageData, [:])
}

/** Corrects the selected outline with the selected corrections, or those near it; without any, waits for clicks. */
void refineSelected(ImageData imageData) {
    def hierarchy = imageData.hierarchy
    def selected = hierarchy.selectionModel.selectedObjects
    def marks = selected.findAll { isCorrection(it) }
    def area = (selected - marks).find { it.hasROI() && it.ROI.isArea() }
    def hasMarks = { hierarchy.annotationObjects.any { isCorrection(it) && meets(it.ROI, area.ROI) } }
    if (area == null)
        inform('Select a result or an outline to refine first.')
    else if (area.isLocked())
        inform('This outline is locked: unlock it first (right-click > Annotations > Unlock).')
    else if (marks || hasMarks())
        segment(imageData, [ids: marks*.ID*.toString() ?: null], area.ID.toString())
    else if (liveItem == null)
        inform('Switch Live mode on, then choose this again and click where the outline is wrong.')
    else
        startRefining(area)
}

void startRefining(PathObject area) {
    refinedId = area.ID.toString()
    liveViewer?.setSelectedObject(null)
    gui.toolManager.setSelectedTool(PathTools.POINTS)
    showState('click where the outline is too small, or with X where it is too large')
}

/** Finds all objects like the selected ones: in a selected area around them, the visible one, or on the whole slide. */
void findLikeSelected(ImageData imageData) {
    def selected = imageData.hierarchy.selectionModel.selectedObjects.findAll { it.hasROI() && !it.ROI.isEmpty() }
    def regions = selected.findAll { area -> area.isAnnotation() && selected.any { !it.is(area) && holds(area, it) } }
    def examples = (selected - regions).findAll { !isUnwanted(it) }
    if (!examples || examples*.pathClass.unique().size() > 1) {
        inform(examples ? 'Select examples of one class only.' :
            'Select one to ten objects first: outlines, rectangles or results.')
        return
    }
    def places = (regions ? ['the selected area'] : []) + ['the visible area', 'the whole slide']
    def place = Dialogs.showChoiceDialog(TITLE, 'Find all objects like the selected ones in', places, places[0])
    if (place == null || !askPixelSize(imageData))
        return
    def within = place == places[-1] ? null : place == places[-2] ? [visibleArea(imageData)] : regions
    def request = new Request(imageData: imageData, select: null, doing: 'objects found', options: optionsFor())
    def wanted = searchFor(request, examples, within)
    def progress = showProgress(request)
    inBackground(request, { find(request, examples[0].ROI.imagePlane, wanted) }) { failure ->
        progress.call()
        finishFinding(request, failure)
    }
}

boolean holds(PathObject area, PathObject other) {
    def (roi, inner) = [area.ROI, other.ROI]
    return roi.isArea() && roi.contains(inner.centroidX, inner.centroidY)
}

void finishFinding(Request request, String failure) {
    finish(request)
    finds.computeIfAbsent(request.imageData, { [] }) << request.changed.findAll { it.parent != null }
    report(request, failure)
    if (failure)
        return
    def told = "$request.answered objects found${request.isCancelled ? ' before it was canceled' : ''}."
    if (!request.answered && !request.isCancelled)
        told = 'No further objects like these were found: choose examples of another look, or another area.'
    inform(told)
    showState(told)
}

/** Collects what the server should know: what was rejected is unlike what is wanted, others of the class are known. */
Map searchFor(Request request, Collection<PathObject> examples, Collection<PathObject> within) {
    def plane = examples[0].ROI.imagePlane
    def areas = drawnOrResults(request.imageData).findAll { it.ROI.isArea() && it.ROI.imagePlane == plane }
    def (unwanted, others) = areas.split { isUnwanted(it) }
    def classes = [examples[0].pathClass?.toString(), request.options['class']]
    def known = others.findAll { it.pathClass?.toString() in classes } - examples - (within ?: [])
    def negatives = unwanted + deletedFinds(request.imageData)
    return [examples: examples, negatives: negatives, known: known, within: within]
        .collectEntries { name, objects -> [name, objects?.collect { featureOf(it) }] }
}

/** Finds of which some in the same search are still there: if all are gone, the search was undone. */
List<PathObject> deletedFinds(ImageData imageData) {
    def present = drawnOrResults(imageData).collect { metadataOf(it)[PROMPT_KEY] } as Set
    return (finds[imageData] ?: []).collectMany { found ->
        def (kept, gone) = found.split { metadataOf(it)[PROMPT_KEY] in present }
        kept ? gone : []
    }
}

PathObject visibleArea(ImageData imageData) {
    def (server, viewer) = [imageData.server, gui.viewer]
    def whole = new Rectangle(0, 0, server.width, server.height)
    def shown = viewer.displayedRegionShape.bounds.intersection(whole)
    return PathObjects.createAnnotationObject(
        ROIs.createRectangleROI(shown.x, shown.y, shown.width, shown.height, viewer.imagePlane))
}

/** Turns the selected detections, or else all results, into annotations. */
void turnIntoAnnotations(ImageData imageData) {
    def hierarchy = imageData.hierarchy
    def model = hierarchy.selectionModel
    def selected = model.selectedObjects.findAll { it.isDetection() && !it.isCell() && !it.isTile() }
    def detections = selected ?: hierarchy.detectionObjects.findAll { isResult(it) }
    if (!detections) {
        inform('This image has no results that are detections.')
        return
    }
    def annotations = detections.collect { detection ->
        def annotation = PathObjects.createAnnotationObject(detection.ROI, detection.pathClass)
        annotation.setName(detection.name)
        detection.measurements.each { name, value -> annotation.measurementList.put(name, value as double) }
        annotation.getMetadata().putAll(metadataOf(detection))
        def parent = detection.parent
        hierarchy.removeObjectWithoutUpdate(detection, true)
        hierarchy.addObjectBelowParent(parent, annotation, false)
        annotation
    }
    if (selected)
        model.setSelectedObjects(annotations, annotations[-1])
    hierarchy.fireObjectsChangedEvent(this, detections + annotations, false)
}

/** Segments all prompts of an image; a workflow step names options of its own. */
void segmentWithoutWindow(ImageData imageData, Map options = [:]) {
    def trouble = imageData == null ? 'No image is open: name one with -i.' : pixelTrouble(imageData)
    if (trouble)
        throw new ServerException(trouble)
    def request = requestFor(imageData, [:], null, options)
    exchange(request)
    finish(request)
    println "prompts: ${request.answered}, without outline: ${request.reasons}"
}

/** Makes the points tool mark points outside of the object, added to those on this plane; or inside again. */
void clickOutside(boolean isNow) {
    def viewer = gui.viewer
    def drawn = viewer?.hierarchy?.annotationObjects ?: []
    if (isNow) {
        classInside = PathPrefs.autoSetAnnotationClassProperty().get()
        idInside = viewer?.selectedObject?.ID
        PathPrefs.autoSetAnnotationClassProperty().set(PathClass.fromString(OUTSIDE))
        gui.toolManager.setSelectedTool(PathTools.POINTS)
        def isHere = { isPoints(it) && it.ROI.imagePlane == viewer.imagePlane }
        viewer?.setSelectedObject(drawn.find { isHere(it) && it.pathClass?.toString() == OUTSIDE })
    } else {
        PathPrefs.autoSetAnnotationClassProperty().set(classInside)
        viewer?.setSelectedObject(drawn.find { it.ID == idInside })
    }
    showState()
}

// What is drawn

boolean isPoints(PathObject object) {
    return object.isAnnotation() && object.hasROI() && object.ROI.isPoint()
}

boolean isIgnored(PathClass pathClass) {
    return pathClass?.toString()?.endsWith('*')
}

boolean isUnwanted(PathObject object) {
    return isIgnored(object.pathClass)
}

/** Tells whether an annotation corrects others: points, a scribble, or background. */
boolean isCorrection(PathObject object) {
    if (!object.isAnnotation() || !object.hasROI())
        return false
    def roi = object.ROI
    return roi.isPoint() || (!isResult(object) && (roi.isLine() || (roi.isArea() && isUnwanted(object))))
}

boolean meets(ROI mark, ROI area) {
    if (mark.isPoint())
        return mark.allPoints.any { area.contains(it.x, it.y) }
    return boundsOf(mark).intersects(boundsOf(area)) &&
        !(mark.isArea() && mark.contains(area.centroidX, area.centroidY))
}

boolean isResult(PathObject object) {
    return metadataOf(object).containsKey(PROMPT_KEY)
}

/** Gets the metadata of an object without making a map for each of a million cells that have none. */
Map<String, String> metadataOf(PathObject object) {
    return object.metaClass.respondsTo(object, 'hasMetadata') && !object.hasMetadata() ? [:] : object.getMetadata()
}

Map<String, PathObject> objectsById(PathObjectHierarchy hierarchy) {
    return hierarchy.getAllObjects(false).collectEntries { [it.ID.toString(), it] }
}

/** Lists the annotations of an image, its results of any type, and one more object. */
List<PathObject> drawnOrResults(ImageData imageData, String id = null) {
    def isOurs = { it.isAnnotation() || isResult(it) || it.ID.toString() == id }
    return imageData.hierarchy.getAllObjects(false).findAll { it.hasROI() && !it.ROI.isEmpty() && isOurs(it) } as List
}

/** Converts an object for the server, a polygon with all of its vertices, of which QuPath's geometry may lack some. */
JsonObject featureOf(PathObject object) {
    def feature = JSON.fromJson(GEOJSON.toJson(object, PathObject), JsonObject)
    feature.getAsJsonObject('properties').add('metadata', JSON.toJsonTree(metadataOf(object)))
    def roi = object.ROI
    if (roi instanceof PolygonROI) {
        def ring = roi.allPoints.collect { [hundredths(it.x), hundredths(it.y)] }
        def geometry = feature.getAsJsonObject('geometry')
        geometry.addProperty('type', 'Polygon')
        geometry.add('coordinates', JSON.toJsonTree([ring + [ring[0]]]))
    }
    return feature
}

double hundredths(double value) {
    return Math.round(value * 100) / 100d
}

/** Collects what is drawn: rectangles, points, what is asked for, and results, of the area if there is one. */
Request requestFor(ImageData imageData, Map select, String refinedId = null, Map options = [:], Rectangle area = null) {
    def request = new Request(
        imageData: imageData, select: select, refinedId: refinedId, options: optionsFor() + options)
    collect(request, area)
    return request
}

void collect(Request request, Rectangle area = null) {
    def ids = request.select.ids ?: []
    def isNear = { area == null || area.intersects(boundsOf(it.ROI)) }
    def (results, others) = drawnOrResults(request.imageData, request.refinedId).split { isResult(it) }
    results = results.findAll { metadataOf(it)[PROMPT_KEY] in ids || isNear(it) }
    def named = results.collect { metadataOf(it)[PROMPT_KEY] } + ids + request.refinedId as Set
    def drawn = others.findAll {
        it.ID.toString() in named || ((isCorrection(it) || it.ROI instanceof RectangleROI) && isNear(it))
    }
    for (plane in (results + drawn).groupBy { [it.ROI.z, it.ROI.t] }.values()) {
        def features = plane.collect { featureOf(it) }
        plane.eachWithIndex { object, n -> request.sent[object.ID.toString()] = features[n].toString() }
        if (request.refinedId == null || plane.any { it.ID.toString() == request.refinedId })
            request.planes << [plane: plane[0].ROI.imagePlane, objects: plane, features: features]
    }
    request.total = ids.size() ?: drawn.size()
}

Map optionsFor() {
    return [object_size_um: sizeHint ?: SIZES_UM[chosen.ObjectSize.get()], object_type: chosen.ObjectType.get(),
        'class': chosen.Class.get().trim() ?: null]
}

// Answers

PathObject resultOf(JsonObject feature) {
    feature = feature.deepCopy()
    def metadata = feature.getAsJsonObject('properties').remove('metadata').entrySet()
        .collectEntries { [it.key, it.value.asString] }
    def result = GEOJSON.fromJson(feature, PathObject)
    try {
        result.getMetadata().putAll(metadata)
    } catch (UnsupportedOperationException e) {
        // QuPath 0.5.1 keeps metadata of detections, too, but offers no method to set them.
        metadata.each { name, value -> result.storeMetadataValue(name, value) }
    }
    return result
}

/** Adds answers to an image without an event: each below its parent, for what it replaces unless that changed since. */
List<PathObject> addAnswers(PathObjectHierarchy hierarchy, Collection<JsonObject> answers, Map<String, String> sent) {
    def byId = objectsById(hierarchy)
    def changed = []
    for (answer in answers) {
        def replaced = idsIn(answer, 'replaces').collect { byId[it] }
            .findAll { it != null && sent[it.ID.toString()] == featureOf(it).toString() }
        def result = isEmpty(answer) ? null : resultOf(answer)
        def id = result?.ID?.toString()
        def sources = idsIn(answer, 'sources')
        def isDeleted = sources && !sources.any { it in byId }
        if (result != null && (isDeleted || (id in byId && !(byId[id] in replaced))))
            continue
        def parent = byId[textOf(answer, 'parent')] ?: replaced.find()?.parent ?: hierarchy.rootObject
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

boolean isEmpty(JsonObject answer) {
    return answer.get('geometry').isJsonNull()
}

List<String> idsIn(JsonObject answer, String name) {
    return answer.get(name)?.isJsonArray() ? answer.getAsJsonArray(name).collect { it.asString } : []
}

String textOf(JsonObject object, String name) {
    return object.get(name)?.isJsonPrimitive() ? object.get(name).asString : null
}

int countOf(JsonObject object, String name) {
    return object.get(name)?.isJsonPrimitive() ? object.get(name).asInt : 0
}

/** Takes the answers that have come; those for an image that is not shown any more are kept. */
List<PathObject> takeArrived(Request request) {
    def answers = []
    for (JsonObject answer; (answer = request.arrived.poll()) != null;) {
        request.done++
        def state = textOf(answer, 'state')
        if (!isEmpty(answer) || state in ['answered', 'reviewed'])
            request.answered++
        else if (state != 'gone')
            request.reasons << textOf(answer.getAsJsonObject('properties'), 'reason')
        answers << answer
    }
    if (!isShown(request.imageData)) {
        request.kept.addAll(answers)
        return []
    }
    def changed = addAnswers(request.imageData.hierarchy, answers, request.sent)
    if (request.isLive && answers)
        rememberCandidates(answers, changed)
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
    def changed = takeArrived(request)
    if (!changed)
        return
    request.changed.addAll(changed)
    def hierarchy = request.imageData.hierarchy
    def nothing = PathObjects.createDetectionObject(ROIs.createPointsROI(0, 0, ImagePlane.defaultPlane))
    hierarchy.insertPathObject(nothing, false)
    hierarchy.removeObjectWithoutUpdate(nothing, false)
    hierarchy.fireObjectsChangedEvent(this, changed, true)
}

/** Adds the remaining results, and makes one undo step of the whole request, or of the click with its outline. */
void finish(Request request) {
    request.changed.addAll(takeArrived(request))
    if (request.kept)
        Thread.startDaemon('wsi-sam') { saveKept(request) }
    // QuPath 0.5.1 makes no undo step for events without objects.
    if (!request.changed)
        return
    isOwnEvent = request.isLive
    request.imageData.hierarchy.fireObjectsChangedEvent(this, request.changed, false)
    isOwnEvent = false
    if (request.isLive)
        joinUndoSteps()
    else if (request.select != null && !request.refinedId && !request.select.ids)
        addWorkflowStep(request)
}

/** Takes away the undo steps of a click without its outline, which QuPath made before the outline came. */
void joinUndoSteps() {
    try {
        def steps = gui.undoRedoManager.@map.get(liveViewer)?.@undoStack
        (0..<Math.min(openSteps, steps?.size() ?: 0)).each { steps.pop() }
        openSteps = 0
    } catch (MissingFieldException e) {
        logger.debug('This QuPath keeps its undo steps elsewhere, so that a click has two', e)
    }
}

/** Notes the run in QuPath's workflow, as a script that does the same to any image. */
void addWorkflowStep(Request request) {
    def options = request.options.findAll { it.value != null }
    def given = options.collect { "'$it.key': ${it.value instanceof String ? JSON.toJson(it.value) : it.value}" }
    def file = new File(getClass().protectionDomain.codeSource.location.toURI())
    def script = "new GroovyShell(getClass().classLoader).parse(new File(${JSON.toJson(file.path)}))" +
        ".segmentWithoutWindow(getCurrentImageData(), [${given.join(', ') ?: ':'}])"
    def step = new DefaultScriptableWorkflowStep('WSI-SAM: segment all prompts', options, script.replace('$', '\\$'))
    request.imageData.historyWorkflow.addStep(step)
}

/** Saves the answers for an image that was closed since. */
void saveKept(Request request) {
    def project = gui.project
    def entry = project?.getEntry(request.imageData)
    def told = "${request.kept.size()} outlines came after their image was closed, and it is in no project: " +
        'open it and segment it again.'
    if (entry != null) {
        addToEntry(project, entry.ID, request.kept, request.sent)
        told = "${request.kept.size()} answers were saved in ${entry.imageName}."
    }
    Platform.runLater { inform(told) }
}

/** Adds answers to an image of a project, whether it is shown or not. */
void addToEntry(project, String id, List<JsonObject> answers, Map<String, String> sent) {
    def isDone = onApplicationThread {
        def hierarchy = shownImages(project)[id]?.hierarchy
        def changed = hierarchy == null ? [] : addAnswers(hierarchy, answers, sent)
        if (changed)
            hierarchy.fireObjectsChangedEvent(this, changed, false)
        hierarchy != null
    }
    if (isDone)
        return
    def entry = project.imageList.find { it.ID == id }
    def imageData = entry.readImageData()
    addAnswers(imageData.hierarchy, answers, sent)
    entry.saveImageData(imageData)
    imageData.server.close()
}

/** Tells whether a viewer shows the image; always true without a window. */
boolean isShown(ImageData imageData) {
    return gui == null || gui.allViewers.any { it.imageData === imageData }
}

// Requests

/** Sends what is drawn and shows the answers, without blocking the window. */
void segment(ImageData imageData, Map select, String refinedId = null) {
    if (!askPixelSize(imageData))
        return
    def request = new Request(imageData: imageData, select: select, refinedId: refinedId, options: optionsFor())
    def progress = showProgress(request)
    inBackground(request, { collect(request); exchange(request) }) { failure ->
        progress.call()
        finish(request)
        if (!failure && !request.planes)
            inform('There are no prompts: draw rectangles around objects, or points inside of them.')
        else if (!failure && request.answered && !request.changed && !request.kept)
            inform('Nothing is left to do: the outlines of these prompts were accepted or edited by a person.')
        report(request, failure)
    }
}

/** Works in a thread of its own; what comes then is told whether it failed, and why. */
void inBackground(Request request, Closure work, Closure then) {
    Thread.startDaemon('wsi-sam') {
        def failure = failureOf(request, work)
        Platform.runLater { then(failure) }
    }
}

/** Describes for the user what went wrong; null if nothing did. */
String failureOf(Request request, Closure work) {
    try {
        work()
        return null
    } catch (CancellationException e) {
        return null
    } catch (ServerException e) {
        return request.isCancelled ? null : e.message
    } catch (IOException | JsonParseException e) {
        logger.debug('The response ended early', e)
        return request.isCancelled ? null : 'The server ended the connection in the middle of its response. ' + LOOK
    } catch (RuntimeException e) {
        logger.error(e.message, e)
        return "The script failed: $e. See the log for details (View > Show log)."
    }
}

void report(Request request, String failure) {
    def reasons = request.isCancelled ? [] : request.reasons
    if (failure)
        Dialogs.showErrorNotification(TITLE, wrapped(failure))
    else if (reasons)
        Dialogs.showWarningNotification(
            TITLE, wrapped("No outline for ${reasons.size()} of ${request.done}: ${reasons[0]}."))
}

/** Requests the outlines on each plane; they arrive in the request. */
void exchange(Request request) {
    def ids = request.select.ids
    for (drawn in request.planes) {
        def asked = drawn.objects.findAll { ids == null ? !isResult(it) : it.ID.toString() in ids }
        partsOf(request, drawn, asked).each { exchange(request, it, it.select) }
    }
}

/** Splits what is too much for one request by its place: with each part all is sent that lies near. */
List<Map> partsOf(Request request, Map drawn, List<PathObject> asked, Map select = request.select,
                  int reach = reachPx(request.imageData)) {
    def limits = limitsOf.values().find() ?: ask(request, '/v1/info').getAsJsonObject('limits')
    def (prompts, vertices) = ['prompts', 'vertices'].collect { countOf(limits, it) }
    def isSmall = { it.size() <= prompts && it.sum { it.ROI.numPoints } <= vertices / 2 }
    if (request.refinedId || reach == 0 || isSmall(drawn.objects))
        return [drawn + [select: select]]
    def area = boundsOf(asked)
    def isFew = asked.size() <= Math.max(1, prompts.intdiv(8))
    def place = { area.width > area.height ? it.ROI.centroidX : it.ROI.centroidY }
    def sorted = asked.sort(false, place)
    return (isFew ? [sorted] : sorted.collate(sorted.size() - sorted.size().intdiv(2))).collectMany { part ->
        def around = boundsOf(part)
        around.grow(reach, reach)
        def near = drawn.objects.findIndexValues { around.intersects(boundsOf(it.ROI)) }
        def those = drawn + [objects: drawn.objects[near], features: drawn.features[near]]
        partsOf(request, those, part, select + [ids: part*.ID*.toString()], isFew ? reach.intdiv(4) : reach)
    }
}

Rectangle boundsOf(List<PathObject> objects) {
    return objects.collect { boundsOf(it.ROI) }.inject { one, other -> one.union(other) }
}

Rectangle boundsOf(ROI roi) {
    def (x, y) = [roi.boundsX as int, roi.boundsY as int]
    return new Rectangle(x - 1, y - 1, (roi.boundsWidth as int) + 3, (roi.boundsHeight as int) + 3)
}

double pixelSizeOf(ImageData imageData) {
    return imageData.server.pixelCalibration.averagedPixelSizeMicrons
}

int reachPx(ImageData imageData) {
    return REACH_UM / (pixelSizeOf(imageData) ?: 1)
}

/** Requests outlines of one plane, and again with pixels where the server cannot read the slide. */
void exchange(Request request, Map drawn, Map select, List<Map> regions = null, String path = '/v1/segment') {
    def problem = post(request, path, drawn.plane, [
        prompts: drawn.features, select: select, regions: regions, on_unreadable: 'regions',
        refine: request.refinedId ? JSON.fromJson(request.sent[request.refinedId], JsonObject) : null])
    if (problem == null)
        return
    if (regions != null || nameOf(problem) != 'pixels-needed')
        throw new ServerException(messageOf(problem))
    def ids = idsIn(problem, 'prompts')
    if (ids.size() > PROMPTS_WITH_PIXELS) {
        ids.collate(PROMPTS_WITH_PIXELS).each { exchange(request, drawn, select + [ids: it, area: null], null, path) }
        return
    }
    logger.info('The server cannot read this slide, so its pixels are sent')
    def server = request.imageData.server
    def read = problem.getAsJsonArray('regions').collect { readRegion(server, it, drawn.plane) }
    exchange(request, drawn, select, read, path)
}

/** Searches a slide that the server can read; what it finds arrives in the request. */
void find(Request request, ImagePlane plane, Map wanted) {
    def problem = post(request, '/v1/find', plane, wanted)
    if (problem != null)
        throw new ServerException(nameOf(problem) != 'slide-outside' ? messageOf(problem) :
            'To find objects, the server has to read the slide itself, which it cannot: its file is elsewhere, ' +
            'or the image is rotated, cropped or another plane of a stack.')
}

/** Sends a request about an image, and reads the answers or returns the problem. */
JsonObject post(Request request, String path, ImagePlane plane, Map document) {
    def response = send(request, 'POST', path, document + [
        slide: slideOf(request.imageData.server, plane),
        options: request.options.findAll { it.key != 'adapter' },
        adapter: request.options.adapter ?: chosen.Model.get() ?: null])
    if (response.statusCode() in [200, 204]) {
        readRecords(request, response)
        return null
    }
    def problem = problemOf(response)
    if (nameOf(problem) == 'not-found')
        throw new ServerException(strangerAt(response))
    return problem
}

/** Describes the slide as QuPath shows it. If no file shows the same, it gets a name that no server can open. */
Map slideOf(ImageServer server, ImagePlane plane) {
    def calibration = server.pixelCalibration
    def isPlain = isPlainFile(server) && plane.z == 0 && plane.t == 0
    return [
        uri: isPlain ? server.URIs[0].toString() : 'qupath:pixels',
        width: server.width, height: server.height,
        mpp_x: calibration.pixelWidthMicrons, mpp_y: calibration.pixelHeightMicrons,
        downsamples: server.preferredDownsamples.toList().findAll { it >= 1 }]
}

/** Tells whether QuPath shows the slide as in its file: not rotated, cropped or otherwise changed. */
boolean isPlainFile(ImageServer server) {
    if (server.URIs.size() != 1 || server.builder == null)
        return false
    def builder = JSON.fromJson(GEOJSON.toJson(server.builder, ServerBuilder), JsonObject)
    while (textOf(builder, 'builderType') == 'pyramidize')
        builder = builder.getAsJsonObject('builder')
    return textOf(builder, 'builderType') == 'uri'
}

/** Reads a region at the resolution that the server asks for, or a finer one. */
Map readRegion(ImageServer server, JsonObject needed, ImagePlane plane) {
    def (x, y, width, height) = ['x', 'y', 'width', 'height'].collect { countOf(needed, it) }
    double downsample = Math.min(width / countOf(needed, 'width_px'), height / countOf(needed, 'height_px'))
    def image = server.readRegion(RegionRequest.createInstance(
        server.path, Math.max(1d, downsample), x, y, width, height, plane.z, plane.t))
    def rgb = new BufferedImage(image.width, image.height, BufferedImage.TYPE_INT_RGB)
    def graphics = rgb.createGraphics()
    graphics.drawImage(image, 0, 0, Color.WHITE, null)
    graphics.dispose()
    def bytes = new ByteArrayOutputStream()
    ImageIO.write(rgb, 'PNG', bytes)
    return [x: x, y: y, width: width, height: height, image: bytes.toByteArray().encodeBase64().toString()]
}

/** Reads RFC 8142, one feature per line, each after a record separator; or a collection. */
void readRecords(Request request, HttpResponse<InputStream> response) {
    response.body().newReader('UTF-8').withCloseable { reader ->
        for (String line; (line = reader.readLine()) != null;) {
            def text = line.replace(RECORD_SEPARATOR, '').trim()
            if (!text)
                continue
            def record = JSON.fromJson(text, JsonObject)
            if (record.has('status'))
                throw new ServerException(messageOf(record))
            request.arrived.addAll(record.has('features') ? record.getAsJsonArray('features').toList() : [record])
            if (gui != null && !request.isLive && request.isShowing.compareAndSet(false, true))
                Platform.runLater { showArrived(request) }
        }
    }
}

// The server

/** Sends a request, and repeats it while the server is busy or loads its model. */
HttpResponse<InputStream> send(Request request, String method, String path, Object document = null) {
    def (url, token) = findServer(request)
    checkProtocol(request, url, token)
    return sendTo(request, url, token, method, path, document)
}

HttpResponse<InputStream> sendTo(Request request, String url, String token, String method, String path, document) {
    def isStream = path in ['/v1/segment', '/v1/find'] || path.endsWith('/results')
    def builder = HttpRequest.newBuilder(uriOf(url + path))
        .header('Accept', isStream ? 'application/geo+json-seq' : 'application/json')
        .header('Content-Type', 'application/json')
        .method(method, document == null ? BodyPublishers.noBody() : BodyPublishers.ofString(JSON.toJson(document)))
    if (token)
        builder.header('Authorization', "Bearer $token")
    long end = System.nanoTime() + LONGEST_WAIT.toNanos()
    while (true) {
        def response = sendOnce(request, builder.build(), url)
        long pause = response.headers().firstValue('Retry-After').map { Long.parseLong(it) * 1000 }.orElse(0L)
        if (response.statusCode() != 503 || pause == 0 || System.nanoTime() + pause * 1_000_000 > end)
            return response
        response.body().close()
        tellWait(request, 'the server loads its model')
        Thread.sleep(Math.min(pause, 2000))
    }
}

/** Says what a request waits for, on the viewer and in its progress window. */
void tellWait(Request request, String what) {
    request.waits = what
    showState(what)
}

HttpResponse<InputStream> sendOnce(Request request, HttpRequest message, String url) {
    if (request.isCancelled)
        throw new CancellationException()
    try {
        request.response = httpClient().sendAsync(message, BodyHandlers.ofInputStream())
        def response = request.response.get()
        request.body = response.body()
        request.waits = null
        return response
    } catch (ExecutionException e) {
        def cause = e.cause
        if (cause instanceof CancellationException)
            throw cause
        if (cause instanceof SSLException)
            throw new ServerException(
                "The certificate of $url is not trusted (${cause.message}): enter its PEM file in $SETTINGS.")
        if (cause instanceof ConnectException || cause instanceof HttpConnectTimeoutException)
            throw new ServerException("No server responds at $url. $START")
        throw new ServerException("The server at $url ended the connection (${cause.message ?: cause}). $LOOK")
    }
}

/** Refuses a server that this script was not made for. */
void checkProtocol(Request request, String url, String token) {
    if (limitsOf.containsKey(url))
        return
    def response = sendTo(request, url, token, 'GET', '/v1/info', null)
    if (response.statusCode() == 404)
        throw new ServerException(strangerAt(response))
    if (response.statusCode() != 200)
        throw new ServerException(messageOf(problemOf(response)))
    def info = readJson(response) ?: new JsonObject()
    if (countOf(info, 'protocol') != PROTOCOL)
        throw new ServerException("The server at $url (version ${textOf(info, 'version') ?: 'unknown'}) " +
            'and the scripts in QuPath do not fit each other: run `wsisam-qupath setup`, ' +
            'and start the server and QuPath again.')
    limitsOf.clear()
    limitsOf[url] = info.getAsJsonObject('limits')
}

/** Finds URL and token: those of the settings, else of a server on this computer, which is started if none runs. */
List<String> findServer(Request request = new Request()) {
    def url = chosen.Server.get().trim().replaceAll('/+$', '')
    def local = localServers()
    def found = url ? local.find { it.url == url } : findAnswering(local) ?: startServer(request) ?: local.find()
    if (!url && !found)
        throw new ServerException("No server is running on this computer. $START To have QuPath start it by itself, " +
            "run `wsisam-qupath setup` once. To use a server on another computer, enter its address in $SETTINGS.")
    return [url ?: found.url, chosen.Token.get().trim() ?: found?.token]
}

/** The folder where servers leave their files, and `setup` leaves a note of the program. */
File ownFolder() {
    return new File(System.getProperty('user.home'), '.wsisam-qupath')
}

/** Lists the servers on this computer by the files they left, the newest first; a killed one left its file too. */
List<Map> localServers() {
    def isServer = { it.isFile() && it.name.endsWith('.json') } as FileFilter
    def files = new File(ownFolder(), 'servers').listFiles(isServer) ?: [] as File[]
    return files.toList().sort { -it.lastModified() }.findResults { serverIn(it) }
}

Map serverIn(File file) {
    def about = readJson(file)
    return about?.has('url') && about.has('token') ? [url: textOf(about, 'url'), token: textOf(about, 'token')] : null
}

/** Finds a server of this program that answers. */
Map findAnswering(List<Map> servers) {
    return servers.find { server ->
        try {
            def asked = HttpRequest.newBuilder(uriOf(server.url + '/healthz')).timeout(Duration.ofSeconds(2)).build()
            def response = httpClient().send(asked, BodyHandlers.ofInputStream())
            return response.statusCode() == 200 && readJson(response)?.has('state')
        } catch (IOException e) {
            logger.debug("$server.url: ${e.message}", e)
            return false
        }
    }
}

/** Starts the program that `setup` noted, unless this did so; it stops when QuPath ends. Null without a note. */
synchronized Map startServer(Request request) {
    def command = idsIn(readJson(new File(ownFolder(), 'program.json')) ?: new JsonObject(), 'command')
    if (!command)
        return null
    // Named, as the home folder of Java may be another one than that of the program.
    def file = new File(ownFolder(), "servers/qupath-${ProcessHandle.current().pid()}.json")
    if (!ownServer?.isAlive()) {
        tellWait(request, 'the server starts')
        def options = ['serve', '--port', '0', '--stop-with-input', '--token-file', file.path]
        ownServer = startProgram(command + options, file)
    }
    long end = System.nanoTime() + LONGEST_WAIT.toNanos()
    while (ownServer.isAlive() && System.nanoTime() < end) {
        def found = serverIn(file)
        if (found)
            return found
        if (request.isCancelled)
            throw new CancellationException()
        Thread.sleep(200)
    }
    def trouble = ownServer.isAlive() ? "is silent after ${LONGEST_WAIT.toMinutes()} minutes" : 'has ended'
    throw new ServerException("The server that QuPath started $trouble: see View > Show log for the reason. $START")
}

/** Starts the server, with its log in that of QuPath, and without the file that an earlier one may have left. */
Process startProgram(List<String> command, File file) {
    logger.info("Starting ${command.join(' ')}")
    try {
        Files.createDirectories(file.parentFile.toPath())
        Files.deleteIfExists(file.toPath())
        def program = new ProcessBuilder(command).redirectErrorStream(true).start()
        def output = program.inputStream
        Thread.startDaemon('wsi-sam server') { output.eachLine { if (!it.startsWith('Token:')) logger.info(it) } }
        return program
    } catch (IOException e) {
        throw new ServerException("The server cannot be started (${e.message}): run `wsisam-qupath setup` again.")
    }
}

void startFromMenu() {
    withServer { inform('The server runs.') }
}

/** Finds a server, or starts one; what comes then is told its address. */
void withServer(Closure then) {
    def request = new Request(doing: 'the server starts')
    def progress = showProgress(request)
    def url = null
    inBackground(request, { url = findServer(request)[0] }) { failure ->
        progress.call()
        failure ? report(request, failure) : then(url)
    }
}

void stopServer() {
    def isOurs = ownServer?.isAlive()
    if (isOurs)
        ownServer.destroy()
    inform(isOurs ? 'The server is stopped. The next command starts it again.' :
        'QuPath has started no server: stop it where it was started, with Ctrl+C.')
    if (isOurs)
        showState('the server is stopped')
}

URI uriOf(String text) {
    try {
        def uri = new URI(text)
        if (uri.host != null && uri.scheme in ['http', 'https'])
            return uri
    } catch (URISyntaxException e) {
        logger.debug(e.message, e)
    }
    throw new ServerException(
        "'$text' is not the address of a server: enter it in $SETTINGS like http://127.0.0.1:8473.")
}

/** Makes one client for all requests, as it keeps connections open. */
synchronized HttpClient httpClient() {
    def certificate = chosen.Certificate.get().trim()
    if (client == null || certificate != clientCertificate) {
        def builder = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1).connectTimeout(Duration.ofSeconds(10))
        if (certificate)
            builder.sslContext(trusting(new File(certificate)))
        client = builder.build()
        clientCertificate = certificate
    }
    return client
}

SSLContext trusting(File certificate) {
    if (!certificate.isFile())
        throw new ServerException(
            "There is no file $certificate: enter the file of the server's certificate in $SETTINGS.")
    def store = KeyStore.getInstance(KeyStore.defaultType)
    store.load(null, null)
    def found = certificate.withInputStream { CertificateFactory.getInstance('X.509').generateCertificates(it) }
    found.eachWithIndex { one, n -> store.setCertificateEntry("$n", one) }
    def factory = TrustManagerFactory.getInstance(TrustManagerFactory.defaultAlgorithm)
    factory.init(store)
    def context = SSLContext.getInstance('TLS')
    context.init(null, factory.trustManagers, null)
    return context
}

JsonObject readJson(String text) {
    try {
        return JSON.fromJson(text, JsonObject)
    } catch (JsonParseException e) {
        logger.debug(e.message, e)
        return null
    }
}

JsonObject readJson(File file) {
    try {
        return file.isFile() ? readJson(file.getText('UTF-8')) : null
    } catch (IOException e) {
        logger.debug("$file: ${e.message}", e)
        return null
    }
}

JsonObject readJson(HttpResponse<InputStream> response) {
    return readJson(response.body().withCloseable { it.getText('UTF-8') })
}

/** Reads the server's error message. */
JsonObject problemOf(HttpResponse<InputStream> response) {
    def problem = readJson(response)
    if (problem?.has('detail') && problem.has('type'))
        return problem
    throw new ServerException(strangerAt(response))
}

String strangerAt(HttpResponse response) {
    return "${response.uri().resolve('/')} (status ${response.statusCode()}) is not a server of wsisam-qupath, " +
        "or it is too old: update it, or enter another one in $SETTINGS."
}

String nameOf(JsonObject problem) {
    return textOf(problem, 'type').tokenize(':')[-1]
}

String messageOf(JsonObject problem) {
    def id = textOf(problem, 'instance')?.tokenize(':')?.last()
    def hint = nameOf(problem) == 'unauthorized' ?
        " For a server on this computer the script finds the token by itself; otherwise enter it in $SETTINGS." : ''
    return textOf(problem, 'detail') + hint + (id ? "\n(request $id)" : '')
}

/** Sends a request and returns the server's JSON. */
JsonObject ask(Request request, String path, String method = 'GET', Object document = null) {
    def response = send(request, method, path, document)
    if (response.statusCode() >= 300)
        throw new ServerException(messageOf(problemOf(response)))
    return readJson(response)
}

// Live mode

/** Sends what is drawn or changed from now on. */
void setLive(item, boolean isOn) {
    liveItem = isOn ? item : null
    gui.imageDataProperty().removeListener(liveImageListener)
    if (isOn) {
        // Not within the animation, where no dialog may be shown.
        livePause = pause(PAUSE_MS) { followChanges() }
        liveRest = pause(REST_MS) { preview() }
        gui.imageDataProperty().addListener(liveImageListener)
    }
    watch(isOn ? gui.imageData : null)
}

PauseTransition pause(int milliseconds, Closure then) {
    def pause = new PauseTransition(new javafx.util.Duration(milliseconds))
    pause.setOnFinished { Platform.runLater { then() } }
    return pause
}

@Field final ChangeListener liveImageListener = { o, was, now -> watch(now) } as ChangeListener

@Field final PathObjectHierarchyListener liveListener =
    { event -> noteEvent(event.isChanging()) } as PathObjectHierarchyListener

@Field final EventHandler<KeyEvent> liveKeys = { event ->
    def step = [(KeyCode.OPEN_BRACKET): -1, (KeyCode.CLOSE_BRACKET): 1][event.code]
    if (event.code == KeyCode.ENTER)
        acceptObject()
    else if (step)
        chooseCandidate(step)
    if (step || event.code == KeyCode.ENTER)
        event.consume()
} as EventHandler

@Field final EventHandler<MouseEvent> liveMouse = { event ->
    def point = liveViewer.componentPointToImagePoint(event.x, event.y, null, false)
    def isMove = event.eventType == MouseEvent.MOUSE_MOVED
    if (event.eventType == MouseEvent.MOUSE_RELEASED)
        released = System.nanoTime()
    cursor = [hundredths(point.x), hundredths(point.y)]
    if (!isMove || !outlines.preview?.contains(*cursor))
        showPreview(null)
    if (isMove && chosen.Preview.get() == 'yes')
        liveRest.playFromStart()
    else
        liveRest.stop()
} as EventHandler

void noteEvent(boolean isChanging) {
    if (isChanging || isOwnEvent)
        return
    def root = liveImage?.hierarchy?.rootObject
    if (root.is(liveRoot)) {
        openSteps += 1
    } else {    // undo or redo: what was asked for is another image's, so to speak
        liveRoot = root
        openSteps = 0
        liveRequest?.cancel()
        liveRequest = null
    }
    Platform.runLater { livePause.playFromStart() }
}

/** Watches another image. Annotations that it has already are not sent. */
void watch(ImageData imageData) {
    liveImage?.hierarchy?.removeListener(liveListener)
    [liveRequest, livePreview].each { it?.cancel() }
    [livePause, liveRest].each { it?.stop() }
    liveRequest = livePreview = null
    liveDirty.clear()
    forgetObject()
    leaveViewer()
    liveImage = imageData
    liveViewer = imageData == null ? null : gui.allViewers.find { it.imageData === imageData }
    if (liveViewer == null)
        return
    liveSeen = drawnIn(imageData)
    liveRoot = imageData.hierarchy.rootObject
    openSteps = 0
    imageData.hierarchy.addListener(liveListener)
    enterViewer()
    showState('…')
    // So that a server runs and its model is loaded before the first click.
    inBackground(new Request(), { ask(new Request(), '/v1/info') }) { failure ->
        showState(failure ? wrapped(failure) : 'ready: draw around an object, or click in it with the points tool')
    }
}

void leaveViewer() {
    def view = liveViewer?.view
    view?.removeEventFilter(KeyEvent.KEY_PRESSED, liveKeys)
    view?.removeEventFilter(MouseEvent.ANY, liveMouse)
    view?.children?.remove(liveLabel)
    liveViewer?.customOverlayLayers?.remove(outlines)
}

void enterViewer() {
    outlines = new Outlines(liveViewer.overlayOptions)
    liveViewer.customOverlayLayers.add(outlines)
    liveLabel = new Label()
    liveLabel.setId('wsisam-line')
    liveLabel.setStyle(
        '-fx-background-color: rgba(0,0,0,0.65); -fx-text-fill: white; -fx-padding: 4 8; -fx-background-radius: 4')
    liveLabel.setMouseTransparent(true)
    StackPane.setAlignment(liveLabel, Pos.TOP_LEFT)
    StackPane.setMargin(liveLabel, new Insets(10))
    def view = liveViewer.view
    view.addEventFilter(KeyEvent.KEY_PRESSED, liveKeys)
    view.addEventFilter(MouseEvent.ANY, liveMouse)
    view.children.add(liveLabel)
}

/** Notes how each annotation is drawn, to see which one changes. */
Map<String, List> drawnIn(ImageData imageData) {
    return imageData.hierarchy.annotationObjects.findAll { it.hasROI() && !isResult(it) }
        .collectEntries { [it.ID.toString(), [it.ROI, it.pathClass]] }
}

/** Sends what was drawn or changed since. */
void followChanges() {
    if (liveImage == null)
        return
    def now = drawnIn(liveImage)
    def changed = now.findAll { id, drawn -> !isSame(liveSeen[id], drawn) }
    changed.each { id, drawn ->
        def area = changedArea(liveSeen[id]?.get(0), drawn[0])
        liveArea = liveArea?.union(area) ?: area
    }
    liveSeen = now
    liveDirty.addAll(changed.keySet())
    liveDirty.retainAll(now.keySet())
    outlines.results.removeIf { it.parent == null }
    if (!liveDirty) {
        openSteps = 0
        return
    }
    [liveRequest, livePreview].each { it?.cancel() }
    if (!askPixelSize(liveImage)) {
        liveItem.setSelected(false)
        return
    }
    def area = new Rectangle(liveArea)
    area.grow(reachPx(liveImage), reachPx(liveImage))
    def select = [ids: liveDirty as List] + (refinedId ? [:] : [area: wholePixels(liveArea), follow: true])
    askLive(requestFor(liveImage, select, refinedId, [candidates: 3], area), '…')
}

Map wholePixels(Rectangle area) {
    return [x: Math.max(0, area.x), y: Math.max(0, area.y), width: area.width, height: area.height]
}

void askLive(Request request, String state) {
    request.isLive = true
    liveRequest = request
    showState(state)
    long started = System.nanoTime()
    long mouse = released
    inBackground(request, { exchange(request) }) { failure ->
        long answered = System.nanoTime()
        if (!request.is(liveRequest))
            return
        settle(request, failure)
        if (!failure && mouse)
            outlines.onPaint = { logTimes(mouse, started, answered) }
        liveViewer.repaint()
    }
}

/** Logs how long a click took, once its outline is painted; the screen shows it with its next picture. */
void logTimes(long mouse, long started, long answered) {
    outlines.onPaint = null
    released = 0
    def times = [System.nanoTime() - mouse, started - mouse, answered - started].collect { it.intdiv(1_000_000) }
    logger.debug(
        'Outline drawn {} ms after the mouse: QuPath told of the change after {} ms, the answer took {} ms', *times)
}

/** Shows the answer to the last change; what failed is tried again as soon as the server is back. */
void settle(Request request, String failure) {
    liveRequest = null
    finish(request)
    if (failure) {
        showState(wrapped(failure))
        if (!isLiveFailed)
            report(request, failure)
        isLiveFailed = true
        pause(RETRY_MS) { liveRequest ?: livePause?.playFromStart() }.play()
        return
    }
    isLiveFailed = false
    liveDirty.clear()
    liveArea = null
    showState(request.reasons.find())
}

boolean isSame(List before, List now) {
    def (old, recent) = [before?.get(0), now[0]]
    return old != null && before[1] == now[1] &&
        (old.is(recent) || (old.getClass() == recent.getClass() && old.allPoints == recent.allPoints))
}

/** The area of the points that were added or taken away, or of what was drawn. */
Rectangle changedArea(ROI before, ROI now) {
    if (now.isPoint() && before?.isPoint()) {
        def (old, recent) = [before.allPoints, now.allPoints]
        def points = (recent - old) + (old - recent)
        if (points)
            return boundsOf(ROIs.createPointsROI(points, now.imagePlane))
    }
    return boundsOf(now.isEmpty() && before != null ? before : now)
}

/** Asks for what a click under the resting cursor would give; the server does so when it has nothing else to do. */
void preview() {
    def isPointing = gui.toolManager.selectedTool == PathTools.POINTS && !isOutside()
    if (liveImage == null || liveRequest != null || !isPointing)
        return
    def selected = liveViewer.selectedObject
    def isContinued = selected != null && isPoints(selected)
    def points = isContinued ? selected.ROI.allPoints.collect { [it.x, it.y] } : []
    def feature = [
        type: 'Feature', id: 'preview', properties: [objectType: 'annotation'],
        geometry: [type: 'MultiPoint', coordinates: points + [cursor]]]
    def drawn = [plane: liveViewer.imagePlane, features: [feature]]
    livePreview?.cancel()
    def request = livePreview = new Request(imageData: liveImage, select: null, isLive: true, options: optionsFor())
    inBackground(request, { exchange(request, drawn, null, null, '/v1/prepare') }) { failure ->
        def answer = request.arrived.poll()
        if (request.is(livePreview) && !failure && liveRequest == null && answer != null && !isEmpty(answer))
            showPreview(RoiTools.getShape(resultOf(answer).ROI))
    }
}

void showPreview(Shape shape) {
    if (outlines.preview == shape)
        return
    outlines.preview = shape
    liveViewer.repaint()
}

/** Keeps what the last click may mean beside its answer, and shows the answer so that nobody overlooks it. */
void rememberCandidates(List<JsonObject> answers, List<PathObject> changed) {
    def results = changed.findAll { it.parent != null }
    outlines.results.addAll(results)
    def answer = answers.find { it.has('others') }
    def all = answer == null ? answers.findAll { !isEmpty(it) } : [answer] + answer.getAsJsonArray('others').toList()
    candidates = answer == null ? all : all.sort { resultOf(it).ROI.area }
    def last = results ? results[-1].ID.toString() : null
    candidateId = answer == null ? last : textOf(answer, 'id')
    if (refinedId && last)
        refinedId = last
    showPreview(null)
}

/** Goes to the next smaller or larger thing that the last click may mean; the next object has that size, too. */
void chooseCandidate(int step) {
    int index = candidates.findIndexOf { textOf(it, 'id') == candidateId } + step
    def hierarchy = liveImage.hierarchy
    def shown = objectsById(hierarchy)[candidateId]
    if (shown == null)
        return
    if (index < 0 || index >= candidates.size()) {
        askForSize(shown, step < 0 ? 0.4d : 2.5d)
        return
    }
    def result = resultOf(candidates[index])
    def parent = shown.parent
    hierarchy.removeObjectWithoutUpdate(shown, true)
    hierarchy.addObjectBelowParent(parent, result, false)
    outlines.results << result
    candidateId = result.ID.toString()
    sizeHint = sizeOf(result)
    hierarchy.fireObjectsChangedEvent(this, [shown, result], false)
    showState("${index + 1} of ${candidates.size()}, ${sizeHint as int} µm")
}

/** Asks again for an object of another size, where the server had no other candidate. */
void askForSize(PathObject shown, double factor) {
    sizeHint = sizeOf(shown) * factor
    def select = [ids: [shown.ID.toString()]]
    askLive(requestFor(liveImage, select, null, [candidates: 3]), "about ${sizeHint as int} µm …")
}

double sizeOf(PathObject result) {
    def roi = result.ROI
    return Math.max(roi.boundsWidth, roi.boundsHeight) * pixelSizeOf(liveImage)
}

/** Begins the next object. */
void acceptObject() {
    liveViewer.setSelectedObject(null)
    forgetObject()
    showState()
}

void forgetObject() {
    candidates = []
    candidateId = refinedId = null
    liveArea = null
}

boolean isOutside() {
    return isIgnored(PathPrefs.autoSetAnnotationClassProperty().get())
}

/** Writes a line on the viewer: what live mode does, and by which keys. */
void showState(String state = null) {
    liveState = state ?: 'ready'
    if (liveLabel == null)
        return
    Platform.runLater {
        def words = ['WSI-SAM live', isOutside() ? 'clicks OUTSIDE' : 'clicks inside',
            chosen.Class.get() ? "class ${chosen.Class.get()}" : null, chosen.Model.get() ?: null, liveState]
        def undo = new KeyCodeCombination(KeyCode.Z, KeyCombination.SHORTCUT_DOWN).displayText
        def keys = ['X: inside or outside', 'Enter: next object',
            candidateId ? '[ ]: smaller, larger' : null, "$undo: back"]
        liveLabel.setText(words.findAll().join('  ·  ') + '\n' + keys.findAll().join('   '))
    }
}

// Project jobs

/** Lets the server segment the project. It does not write the images shown here; their results are added here. */
void segmentProject() {
    def project = gui.project
    if (project == null) {
        inform('Open a project first, or use Segment all prompts in this image.')
        return
    }
    def text = "The server segments all rectangles and points in ${project.size()} images and saves the outlines in " +
        'the images that are not open here. Do not edit those images until it has finished.'
    if (!Dialogs.showConfirmDialog(TITLE, text) || !saveShown(project))
        return
    def request = new Request(doing: 'images', options: optionsFor())
    haveDone(request, { runJob(request, project) }) { inform(it) }
}

/** Has the server do something while a small window shows how far it is. */
void haveDone(Request request, Closure work, Closure then) {
    def progress = showProgress(request)
    def made = null
    inBackground(request, { made = work() }) { failure ->
        progress.call()
        report(request, failure)
        if (made)
            then(made)
    }
}

/** Saves changed images that are shown, as the server reads saved files; false to cancel. */
boolean saveShown(project) {
    def changed = shownImages(project).values().findAll { it.isChanged() }
    def text = 'The server reads saved images only. Save the changes of the open image first?'
    if (changed && !Dialogs.showConfirmDialog(TITLE, text))
        return false
    changed.each { project.getEntry(it).saveImageData(it) }
    project.syncChanges()   // which keeps a pixel size that was entered
    return true
}

/** Gives the images of a project that the viewers show, by their ids. */
Map<String, ImageData> shownImages(project) {
    return gui.allViewers*.imageData.findAll { it != null && project.getEntry(it) != null }
        .collectEntries { [project.getEntry(it).ID, it] }
}

/** Notes the results in images that are shown: only those that nobody changes until the job ends are replaced. */
Set<String> noteShown(Request request, project) {
    return onApplicationThread {
        def shown = shownImages(project)
        shown.values().each { imageData ->
            drawnOrResults(imageData).findAll { isResult(it) }
                .each { request.sent.putIfAbsent(it.ID.toString(), featureOf(it).toString()) }
        }
        shown.keySet()
    }
}

/** Has a job done. Returns a summary for the user; null if it was cancelled. */
String runJob(Request request, project) {
    def shown = noteShown(request, project)
    def job = ask(request, '/v1/jobs', 'POST', [
        project: project.path.toUri().toString(), project_is_open: true, open_images: shown as List,
        options: request.options])
    def path = "/v1/jobs/${textOf(job, 'id')}"
    job = follow(request, path, job) {
        request.done = countOf(it, 'images_ended')
        request.total = countOf(it, 'images')
        def now = noteShown(request, project)
        if (now != shown)
            ask(new Request(), "$path/open-images", 'PUT', [images: now as List])
        shown = now
    }
    if (job == null)
        return null
    def records = send(new Request(), 'GET', "$path/results").body().withCloseable { it.readLines('UTF-8') }
        .collect { readJson(it.replace(RECORD_SEPARATOR, '')) }.findAll()
    records.groupBy { textOf(it, 'image') }.each { id, answers -> addToEntry(project, id, answers, request.sent) }
    ask(new Request(), path, 'DELETE')
    return textOf(job, 'summary')
}

/** Follows work on the server to its end; null if it was cancelled here. */
JsonObject follow(Request request, String path, JsonObject work, Closure note) {
    while (textOf(work, 'state') in ['waiting', 'running']) {
        if (request.isCancelled) {
            ask(new Request(), path, 'DELETE')
            return null
        }
        Thread.sleep(500)
        work = ask(new Request(), path)
        note(work)
    }
    if (textOf(work, 'state') == 'failed')
        throw new ServerException(textOf(work, 'reason'))
    return work
}

/** Has the server train on the areas that are annotated in the project; what is better can be used at once. */
void trainOnProject() {
    def project = gui.project
    if (project == null) {
        inform('Open a project with annotated images first.')
        return
    }
    def text = wrapped('The server trains a model on the areas that you drew or took over as annotations, in all ' +
        'saved images, and compares it with its present one on slides that it leaves out. ' +
        'You can go on working here. Name of the new model:')
    def folder = project.getPath().getParent().getFileName().toString()
    def name = Dialogs.showInputDialog(TITLE, text, folder.replaceAll('[^A-Za-z0-9 _-]', '-'))?.trim()
    if (!name)
        return
    def times = MINUTES.keySet() as List
    def time = Dialogs.showChoiceDialog(TITLE, 'How long may the training take?', times, times[0])
    if (time == null || !saveShown(project))
        return
    def request = new Request(doing: 'The training starts')
    haveDone(request, { runTraining(request, project, [name: name, minutes: MINUTES[time]]) }) { offer(it) }
}

JsonObject runTraining(Request request, project, Map wanted) {
    def training = ask(request, '/v1/trainings', 'POST', [project: project.path.toUri().toString()] + wanted)
    def path = "/v1/trainings/${textOf(training, 'id')}"
    training = follow(request, path, training) {
        request.doing = textOf(it, 'progress') ?: request.doing
        request.done = countOf(it, 'done')
        request.total = countOf(it, 'total')
    }
    if (training == null)
        Platform.runLater { inform('The training is stopped. With the same name it goes on from there.') }
    else if (training.get('has_report').asBoolean)
        showReport("$path/report")
    return training
}

void showReport(String path) {
    def page = File.createTempFile('wsi-sam-training', '.html')
    page.bytes = send(new Request(), 'GET', path).body().withCloseable { it.bytes }
    page.deleteOnExit()
    Platform.runLater { QuPathGUI.openInBrowser(page.toURI().toString()) }
}

void offer(JsonObject training) {
    def summary = wrapped(textOf(training, 'summary'))
    def adapter = textOf(training, 'adapter')
    if (adapter == null)
        Dialogs.showPlainMessage(TITLE, summary)
    else if (Dialogs.showYesNoDialog(
            TITLE, "$summary\n\nUse it from now on? You can change this in the settings (Model)."))
        chosen.Model.set(adapter)
    showState()
}

def onApplicationThread(Closure work) {
    def task = new FutureTask(work as Callable)
    Platform.runLater(task)
    return task.get()
}

// Dialogs

/** Shows a message for some seconds, and keeps it in QuPath's log. */
void inform(String message) {
    logger.info(message)
    if (gui != null)
        Dialogs.showInfoNotification(TITLE, wrapped(message))
}

/** Breaks text into lines that fit a notification, which does not wrap them. */
String wrapped(String text) {
    return text.replaceAll(/(.{50,75}?) /, '$1\n')
}

/** Shows a small window that blocks nothing, but only if results take a moment. Returns a closure that closes it. */
Closure showProgress(Request request) {
    def (bar, label, cancel) = [new ProgressBar(), new Label(), new Button('Cancel')]
    def row = new HBox(10, label, bar, cancel)
    row.setPadding(new Insets(15))
    def stage = new Stage()
    stage.initOwner(gui.stage)
    stage.setTitle(TITLE)
    stage.setResizable(false)
    stage.setScene(new Scene(row))
    cancel.setOnAction { request.cancel() }
    stage.setOnCloseRequest { request.cancel() }
    def tick = new PauseTransition(new javafx.util.Duration(700))
    tick.setOnFinished {
        def (done, total) = [request.done, request.total]
        label.setText(request.waits ?: request.doing + (total ? ": $done of $total" : done ? ": $done" : ''))
        bar.setProgress(done && total ? done / total : ProgressBar.INDETERMINATE_PROGRESS)
        if (!stage.isShowing())
            stage.show()
        tick.playFromStart()
    }
    tick.play()
    return {
        tick.stop()
        stage.close()
    }
}

String pixelTrouble(ImageData imageData) {
    if (!imageData.server.isRGB())
        return 'This image is not RGB: only brightfield images can be segmented.'
    return imageData.server.pixelCalibration.hasPixelSizeMicrons() ? null :
        'This image has no pixel size: double-click Pixel width in QuPath\'s Image tab and enter it.'
}

/** Asks once for the pixel size of an image that has none, and sets it in the image. */
boolean askPixelSize(ImageData imageData) {
    def server = imageData.server
    if (server.isRGB() && !server.pixelCalibration.hasPixelSizeMicrons()) {
        def size = Dialogs.showInputDialog(TITLE, 'This image has no pixel size. How wide is one pixel, in µm?\n' +
            '(0.25 for a scan at 40x, 0.5 at 20x.) The image keeps this pixel size.', 0.5d)
        if (size > 0.01 && size < 100)
            imageData.updateServerMetadata(
                new ImageServerMetadata.Builder(server.getMetadata()).pixelSizeMicrons(size, size).build())
    }
    def trouble = pixelTrouble(imageData)
    if (trouble)
        inform(trouble)
    return trouble == null
}

/** Asks a server that runs for its models first, and shows the settings with or without them. */
void showSettings() {
    def models = ['(the first of the server)']
    def addModels = {
        if (chosen.Server.get() || findAnswering(localServers()))
            models += idsIn(ask(new Request(), '/v1/info'), 'adapters')
    }
    inBackground(new Request(), addModels) { failure -> showSettings(models) }
}

void showSettings(List<String> models) {
    def classes = gui.availablePathClasses*.toString().findAll { it != 'null' && !it.endsWith('*') }
    def rows = [
        ObjectType: ['Results are', ['detection', 'annotation'],
            'Detections are lightweight; annotations can be edited by hand'],
        Class: ['Class of all results', ['(that of each prompt)'] + classes,
            'The class of each prompt, or this one for all'],
        ObjectSize: ['Points mark a', SIZES_UM.keySet() as List,
            'Size of objects that are marked by points only. Rectangles show the size themselves'],
        Model: ['Model', models, 'Which of the models of the server answers'],
        Preview: ['Outline under a resting cursor', ['yes', 'no'],
            'In live mode with the points tool: what a click would give'],
        Server: ['Address of a server elsewhere', null,
            'Such as https://gpu.example.org:8473. Empty: the server on this computer, which is found automatically'],
        Token: ['Its token', null,
            'Token that the server printed when it started. Stored in the preferences of QuPath'],
        Certificate: ['Its certificate', null, 'PEM file to trust if the server uses a self-made certificate']]
    def grid = new GridPane()
    grid.setHgap(10)
    grid.setVgap(8)
    def fields = [:]
    rows.eachWithIndex { name, row, n ->
        def (title, choices, tip) = row
        def field = choices == null ? new TextField(chosen[name].get()) : new ComboBox()
        if (choices != null) {
            field.items.setAll((choices + chosen[name].get()).findAll().unique())
            field.setValue(chosen[name].get() ?: choices[0])
        }
        field.setTooltip(new Tooltip(tip))
        field.setMaxWidth(Double.MAX_VALUE)
        fields[name] = field
        grid.addRow(n, new Label(title), field)
    }
    def choose = new Button('Choose…')
    choose.setOnAction {
        fields.Certificate.setText(FileChoosers.promptForFile(TITLE)?.path ?: fields.Certificate.text)
    }
    grid.add(choose, 2, rows.size() - 1)
    if (!Dialogs.showConfirmDialog(TITLE, grid))
        return
    fields.each { name, field ->
        def given = field instanceof TextField ? field.text : field.value.replaceAll('^\\(.*', '')
        chosen[name].set(given.trim())
    }
    sizeHint = null
    showState()
}

/** Shows the server's own page. */
void showServerStatus() {
    withServer { QuPathGUI.openInBrowser("$it/") }
}

void showHelp() {
    QuPathGUI.openInBrowser(HELP)
}
