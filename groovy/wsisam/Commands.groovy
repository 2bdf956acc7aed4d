package wsisam

import java.awt.Rectangle
import qupath.fx.dialogs.Dialogs
import qupath.lib.gui.QuPathGUI
import qupath.lib.images.ImageData
import qupath.lib.objects.*
import qupath.lib.plugins.workflow.DefaultScriptableWorkflowStep
import qupath.lib.roi.ROIs

import static wsisam.Drawing.*
import static wsisam.Json.*
import static wsisam.Say.*

/**
 * The commands of QuPath's menu.
 *
 * They send what is drawn to the server, and add its answers to the image. Which points belong to which
 * object, what is answered already and what an answer replaces is for the server to say.
 */
class Commands {
    private final QuPathGUI gui = QuPathGUI.instance
    private final Settings settings = new Settings()
    private final Server server = new Server(settings: settings)
    private final Exchange exchange = new Exchange(server: server, settings: settings)
    private final Answers answers = new Answers()
    final Live live = new Live(settings: settings, exchange: exchange, answers: answers)
    final ProjectWork project = new ProjectWork(settings: settings, server: server, answers: answers)
    /** The script that a workflow step runs. */
    private final File script
    /** What each search has found in an image since it was opened. */
    private final Map<ImageData, List<List<PathObject>>> finds = new WeakHashMap<>()

    Commands(File script) {
        this.script = script
        server.onWait = { String what -> live.showState(what) }
    }

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

    /** Sends what is drawn and shows the answers, without blocking the window. */
    private void segment(ImageData imageData, Map select, PathObject refined = null) {
        if (!Exchange.askPixelSize(imageData))
            return
        def request = new Request(
            imageData: imageData, select: select, refinedId: refined?.ID?.toString(), options: settings.options())
        request.onArrival = { answers.showArrived(request) }
        showing(request, { exchange.gather(request); exchange.segment(request) }) { failure ->
            finish(request)
            if (!select && request.changed)
                addWorkflowStep(request)
            if (refined != null && live.isOn() && request.skipped) {    // nothing corrects it yet
                live.startRefining(refined)
                return
            }
            if (!failure && !request.planes)
                inform('There are no prompts: draw rectangles around objects, or points inside of them.')
            else if (!failure && request.answered && !request.changed && !request.kept)
                inform('Nothing is left to do: all prompts have their outlines. ' +
                    'Segment selected makes those again that nobody accepted or edited.')
            else if (!failure && !select && !request.kept)
                inform("$request.answered prompts are outlined. The key F fills detections, to see them from afar.")
            report(request, failure)
        }
    }

    /** Adds what is left of the answers, and shows all of them so that nobody overlooks them. */
    private void finish(Request request) {
        answers.finish(request)
        Outlines.flash(viewerOf(request.imageData), request.changed.findAll { it.parent != null })
    }

    /** Segments all prompts of an image without a window; a workflow step names options of its own. */
    void segmentWithoutWindow(ImageData imageData, Map options) {
        def trouble = imageData == null ? 'No image is open: name one with -i.' : Exchange.pixelTrouble(imageData)
        if (trouble)
            throw new ServerException(trouble)
        def request = new Request(imageData: imageData, select: [:], options: settings.options() + options)
        exchange.gather(request)
        exchange.segment(request)
        answers.finish(request)
        if (request.changed)
            addWorkflowStep(request)
        println "prompts: ${request.answered}, without outline: ${request.reasons}"
    }

    /** Notes the run in QuPath's workflow, as a script that does the same to any image. */
    private void addWorkflowStep(Request request) {
        def options = request.options.findAll { it.value != null }
        def given = options.collect { "'$it.key': ${JSON.toJson(it.value)}" }.join(', ') ?: ':'
        def code = "new GroovyShell(getClass().classLoader, new Binding(wsisam: [$given]))" +
            ".evaluate(new File(${JSON.toJson(script.path)}))"
        def step = new DefaultScriptableWorkflowStep(
            'WSI-SAM: segment all prompts', options, code.replace('$', '\\$'))
        request.imageData.historyWorkflow.addStep(step)
    }

    /** Corrects the selected outline with what else is selected, or marks near it; without any, waits for clicks. */
    void refineSelected(ImageData imageData) {
        def selected = imageData.hierarchy.selectionModel.selectedObjects
        def area = selected.find { it.hasROI() && it.ROI.isArea() && (isResult(it) || !isIgnored(it.pathClass)) }
        if (area == null)
            inform('Select a result or an outline to refine first.')
        else if (area.isLocked())
            inform('This outline is locked: unlock it first (right-click > Annotations > Unlock).')
        else
            segment(imageData, [ids: (selected - area)*.ID*.toString() ?: null], area)
    }

    /** Finds objects like the selected ones: in a selected area around them, the visible one, or on the whole slide. */
    void findLikeSelected(ImageData imageData) {
        def selected = imageData.hierarchy.selectionModel.selectedObjects.findAll { it.hasROI() && !it.ROI.isEmpty() }
        def regions = selected.findAll { one -> one.isAnnotation() && selected.any { !it.is(one) && holds(one, it) } }
        def examples = (selected - regions).findAll { !isIgnored(it.pathClass) }
        if (!examples || examples*.pathClass.unique().size() > 1) {
            inform(examples ? 'Select examples of one class only.' :
                'Select one to ten objects first: outlines, rectangles or results.')
            return
        }
        def places = (regions ? ['the selected area'] : []) + ['the visible area', 'the whole slide']
        def place = Dialogs.showChoiceDialog(TITLE, 'Find all objects like the selected ones in', places, places[0])
        if (place == null || !Exchange.askPixelSize(imageData))
            return
        def within = place == places[-1] ? null : place == places[-2] ? [visibleArea(imageData)] : regions
        def request = new Request(imageData: imageData, doing: 'searching', options: settings.options())
        request.onArrival = { answers.showArrived(request) }
        def wanted = searchFor(request, examples, within)
        showing(request, { exchange.find(request, examples[0].ROI.imagePlane, wanted) }) { failure ->
            finishFinding(request, failure)
        }
    }

    private static boolean holds(PathObject area, PathObject other) {
        def (roi, inner) = [area.ROI, other.ROI]
        return roi.isArea() && roi.contains(inner.centroidX, inner.centroidY)
    }

    private PathObject visibleArea(ImageData imageData) {
        def (image, viewer) = [imageData.server, gui.viewer]
        def whole = new Rectangle(0, 0, image.width, image.height)
        def shown = viewer.displayedRegionShape.bounds.intersection(whole)
        return PathObjects.createAnnotationObject(
            ROIs.createRectangleROI(shown.x, shown.y, shown.width, shown.height, viewer.imagePlane))
    }

    /** What the server should know: what was rejected is unlike what is wanted, others of the class are known. */
    private Map searchFor(Request request, Collection<PathObject> examples, Collection<PathObject> within) {
        def plane = examples[0].ROI.imagePlane
        def areas = drawnOrResults(request.imageData).findAll { it.ROI.isArea() && it.ROI.imagePlane == plane }
        def (unwanted, others) = areas.split { isIgnored(it.pathClass) }
        def classes = [examples[0].pathClass?.toString(), request.options['class']]
        def known = others.findAll { it.pathClass?.toString() in classes } - examples - (within ?: [])
        def negatives = unwanted + deletedFinds(request.imageData)
        return [examples: examples, negatives: negatives, known: known, within: within]
            .collectEntries { name, objects -> [name, objects?.collect { featureOf(it) }] }
    }

    /** Finds of which some in the same search are still there: if all are gone, the search was undone. */
    private List<PathObject> deletedFinds(ImageData imageData) {
        def present = drawnOrResults(imageData).collect { metadataOf(it)[PROMPT_KEY] } as Set
        return (finds[imageData] ?: []).collectMany { found ->
            def (kept, gone) = found.split { metadataOf(it)[PROMPT_KEY] in present }
            kept ? gone : []
        }
    }

    private void finishFinding(Request request, String failure) {
        finish(request)
        finds.computeIfAbsent(request.imageData, { [] }) << request.changed.findAll { it.parent != null }
        report(request, failure)
        if (failure)
            return
        def told = "$request.answered objects found${request.isCancelled ? ' before it was canceled' : ''}."
        if (!request.answered && !request.isCancelled)
            told = 'No further objects like these were found: choose examples of another look, or another area.'
        inform(told)
        live.showState(told)
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

    void train() {
        project.train { live.showState() }
    }

    /** Asks a server that runs for its models first, and shows the settings with or without them. */
    void showSettings() {
        def request = new Request()
        def info = null
        def ask = { info = settings['Server'] || server.findAnswering() ? server.ask(request, '/v1/info') : null }
        request.inBackground(ask) {
            if (settings.show(info?.adapters ?: []))
                live.showState()
        }
    }

    void startServer() {
        withServer { inform('The server runs.') }
    }

    void stopServer() {
        if (server.stop()) {
            inform('The server is stopped. The next command starts it again.')
            live.showState('the server is stopped')
        } else {
            inform('QuPath has started no server: stop it where it was started, with Ctrl+C.')
        }
    }

    /** Shows the server's own page. */
    void showServerStatus() {
        withServer { url -> QuPathGUI.openInBrowser("$url/") }
    }

    /** Finds a server, or starts one; `then` is told its address. */
    private void withServer(Closure then) {
        def request = new Request(doing: 'the server starts')
        def url = null
        showing(request, { url = server.findServer(request).url }) { failure ->
            url ? then(url) : report(request, failure)
        }
    }
}
