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
import java.net.http.HttpClient
import java.net.http.HttpConnectTimeoutException
import java.net.http.HttpRequest
import java.net.http.HttpRequest.BodyPublishers
import java.net.http.HttpResponse
import java.net.http.HttpResponse.BodyHandlers
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
import org.slf4j.Logger
import org.slf4j.LoggerFactory
import qupath.fx.dialogs.Dialogs
import qupath.fx.dialogs.FileChoosers
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.prefs.PathPrefs
import qupath.lib.gui.viewer.QuPathViewer
import qupath.lib.gui.viewer.overlays.AbstractOverlay
import qupath.lib.gui.viewer.tools.PathTools
import qupath.lib.images.ImageData
import qupath.lib.images.servers.ImageServer
import qupath.lib.images.servers.ImageServerBuilder.ServerBuilder
import qupath.lib.images.servers.ImageServerMetadata
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

@Field final Logger logger = LoggerFactory.getLogger('wsi-sam')
@Field final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create()
@Field final Gson GEOJSON = GsonTools.getInstance()
@Field final QuPathGUI gui = QuPathGUI.getInstance()
/** What the user chose, each kept by QuPath. */
@Field final Map chosen = [Server: '', Token: '', Certificate: '', Class: '', ObjectType: 'detection', ObjectSize: 'unknown size', Model: '', Preview: 'yes']
    .collectEntries { name, value -> [name, PathPrefs.createPersistentPreference("wsisam$name", value as String)] }

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

    void paintOverlay(Graphics2D g2d, ImageRegion region, double downsample, ImageData<BufferedImage> imageData, boolean isComplete) {
        for (result in results)
            if (result.getParent() != null && region.intersects(ImageRegion.createInstance(result.getROI())))
                draw(g2d, RoiTools.getShape(result.getROI()), result.getPathClass()?.getColor() ?: 0xffd700, downsample, 40)
        if (preview != null)
            draw(g2d, preview, 0x00e5ff, downsample, 25)
        onPaint?.call()
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
    def ids = imageData.getHierarchy().getSelectionModel().getSelectedObjects()*.getID()*.toString()
    ids ? segment(imageData, [ids: ids]) : inform('Select a rectangle, points or a rough outline first. To correct a result, use Refine selected with points.')
}

void segmentAll(ImageData imageData) {
    segment(imageData, [:])
}

/** Corrects the selected outline with the selected points, scribbles and background, or those near it; without any, waits for clicks. */
void refineSelected(ImageData imageData) {
    def hierarchy = imageData.getHierarchy()
    def selected = hierarchy.getSelectionModel().getSelectedObjects()
    def marks = selected.findAll { isCorrection(it) }
    def area = selected.find { it.hasROI() && it.getROI().isArea() && !(it in marks) }
    if (area == null || area.isLocked()) {
        inform(area == null ? 'Select a result or an outline to refine first.' : 'This outline is locked: unlock it first (right-click > Annotations > Unlock).')
    } else if (!marks && !hierarchy.getAnnotationObjects().any { isCorrection(it) && meets(it.getROI(), area.getROI()) }) {
        liveItem == null ? inform('Switch Live mode on, then choose this again and click where the outline is wrong.') : startRefining(area)
    } else
        segment(imageData, [ids: marks*.getID()*.toString() ?: null], area.getID().toString())
}

void startRefining(PathObject area) {
    refinedId = area.getID().toString()
    liveViewer?.setSelectedObject(null)
    gui.getToolManager().setSelectedTool(PathTools.POINTS)
    showState('click where the outline is too small, or with X where it is too large')
}

/** Finds all objects like the selected ones, in a selected area around them, the visible area, or on the whole slide. */
void findLikeSelected(ImageData imageData) {
    def selected = imageData.getHierarchy().getSelectionModel().getSelectedObjects().findAll { it.hasROI() && !it.getROI().isEmpty() }
    def regions = selected.findAll { area -> area.isAnnotation() && area.getROI().isArea() && selected.any { !it.is(area) && area.getROI().contains(it.getROI().getCentroidX(), it.getROI().getCentroidY()) } }
    def examples = (selected - regions).findAll { !isUnwanted(it) }
    if (!examples || examples*.getPathClass().unique().size() > 1) {
        inform(examples ? 'Select examples of one class only.' : 'Select one to ten objects first: outlines, rectangles or results.')
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
    inBackground(request, { find(request, examples[0].getROI().getImagePlane(), wanted) }) { failure ->
        progress.call()
        finishFinding(request, failure)
    }
}

void finishFinding(Request request, String failure) {
    finish(request)
    finds.computeIfAbsent(request.imageData, { [] }) << request.changed.findAll { it.getParent() != null }
    report(request, failure)
    if (!failure) {
        def told = request.isCancelled || request.answered ? "$request.answered objects found${request.isCancelled ? ' before it was canceled' : ''}." :
            'No further objects like these were found: choose examples of another look, or another area.'
        inform(told)
        showState(told)
    }
}

/** Collects what the server should know: rejected objects are unlike what is wanted, and those of its class are there already. */
Map searchFor(Request request, Collection<PathObject> examples, Collection<PathObject> within) {
    def plane = examples[0].getROI().getImagePlane()
    def areas = request.imageData.getHierarchy().getAllObjects(false).findAll { it.hasROI() && it.getROI().isArea() && it.getROI().getImagePlane() == plane && (it.isAnnotation() || isResult(it)) }
    def (unwanted, others) = areas.split { isUnwanted(it) }
    def classes = [examples[0].getPathClass()?.toString(), request.options['class']]
    def known = others.findAll { it.getPathClass()?.toString() in classes } - examples - (within ?: [])
    return [examples: examples, negatives: unwanted + deletedFinds(request.imageData), known: known, within: within]
        .collectEntries { name, objects -> [name, objects?.collect { featureOf(it) }] }
}

/** Finds of which some in the same search are still there: if all are gone, the search was undone. */
List<PathObject> deletedFinds(ImageData imageData) {
    def present = imageData.getHierarchy().getAllObjects(false).collect { metadataOf(it)[PROMPT_KEY] } as Set
    return (finds[imageData] ?: []).collectMany { found ->
        def (kept, gone) = found.split { metadataOf(it)[PROMPT_KEY] in present }
        kept ? gone : []
    }
}

PathObject visibleArea(ImageData imageData) {
    def server = imageData.getServer()
    def shown = gui.getViewer().getDisplayedRegionShape().getBounds().intersection(new Rectangle(0, 0, server.getWidth(), server.getHeight()))
    return PathObjects.createAnnotationObject(ROIs.createRectangleROI(shown.x, shown.y, shown.width, shown.height, gui.getViewer().getImagePlane()))
}

boolean isUnwanted(PathObject object) {
    return object.getPathClass()?.toString()?.endsWith('*')
}

/** Turns the selected detections, or else all results, into annotations. */
void turnIntoAnnotations(ImageData imageData) {
    def hierarchy = imageData.getHierarchy()
    def model = hierarchy.getSelectionModel()
    def selected = model.getSelectedObjects().findAll { it.isDetection() && !it.isCell() && !it.isTile() }
    def detections = selected ?: hierarchy.getDetectionObjects().findAll { isResult(it) }
    if (!detections) {
        inform('This image has no results that are detections.')
        return
    }
    def annotations = detections.collect { detection ->
        def annotation = PathObjects.createAnnotationObject(detection.getROI(), detection.getPathClass())
        annotation.setName(detection.getName())
        detection.getMeasurements().each { name, value -> annotation.getMeasurementList().put(name, value as double) }
        annotation.getMetadata().putAll(metadataOf(detection))
        def parent = detection.getParent()
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

/** Makes the points tool mark points outside of the object, added to existing ones on this plane; or inside again. */
void clickOutside(boolean isOutside) {
    def viewer = gui.getViewer()
    def byId = viewer?.getHierarchy()?.getAnnotationObjects() ?: []
    if (isOutside) {
        classInside = PathPrefs.autoSetAnnotationClassProperty().get()
        idInside = viewer?.getSelectedObject()?.getID()
        PathPrefs.autoSetAnnotationClassProperty().set(PathClass.fromString(OUTSIDE))
        gui.getToolManager().setSelectedTool(PathTools.POINTS)
        viewer?.setSelectedObject(byId.find { isPoints(it) && it.getPathClass()?.toString() == OUTSIDE && it.getROI().getImagePlane() == viewer.getImagePlane() })
    } else {
        PathPrefs.autoSetAnnotationClassProperty().set(classInside)
        viewer?.setSelectedObject(byId.find { it.getID() == idInside })
    }
    showState()
}

// What is drawn

boolean isPoints(PathObject object) {
    return object.isAnnotation() && object.hasROI() && object.getROI().isPoint()
}

/** Tells whether an annotation corrects others: points, a scribble, or background. */
boolean isCorrection(PathObject object) {
    return isPoints(object) || (object.isAnnotation() && !isResult(object) && object.hasROI() && (object.getROI().isLine() || (object.getROI().isArea() && isUnwanted(object))))
}

boolean meets(ROI mark, ROI area) {
    if (mark.isPoint())
        return mark.getAllPoints().any { area.contains(it.getX(), it.getY()) }
    return boundsOf(mark).intersects(boundsOf(area)) && !(mark.isArea() && mark.contains(area.getCentroidX(), area.getCentroidY()))
}

boolean isResult(PathObject object) {
    return metadataOf(object).containsKey(PROMPT_KEY)
}

/** Gets the metadata of an object without making a map for each of a million cells that have none. */
Map<String, String> metadataOf(PathObject object) {
    return object.metaClass.respondsTo(object, 'hasMetadata') && !object.hasMetadata() ? [:] : object.getMetadata()
}

Map<String, PathObject> objectsById(PathObjectHierarchy hierarchy) {
    return hierarchy.getAllObjects(false).collectEntries { [it.getID().toString(), it] }
}

/** Converts an object for the server, a polygon with all of its vertices, of which QuPath's geometry may lack some. */
JsonObject featureOf(PathObject object) {
    def feature = JSON.fromJson(GEOJSON.toJson(object, PathObject), JsonObject)
    feature.getAsJsonObject('properties').add('metadata', JSON.toJsonTree(metadataOf(object)))
    def roi = object.getROI()
    if (roi instanceof PolygonROI) {
        def ring = roi.getAllPoints().collect { [hundredths(it.getX()), hundredths(it.getY())] }
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
    def request = new Request(imageData: imageData, select: select, refinedId: refinedId, options: optionsFor() + options)
    collect(request, area)
    return request
}

void collect(Request request, Rectangle area = null) {
    def ids = request.select.ids ?: []
    def isNear = { area == null || area.intersects(boundsOf(it.getROI())) }
    def objects = request.imageData.getHierarchy().getAllObjects(false).findAll { it.hasROI() && !it.getROI().isEmpty() }
    def results = objects.findAll { isResult(it) && (metadataOf(it)[PROMPT_KEY] in ids || isNear(it)) }
    def named = results.collect { metadataOf(it)[PROMPT_KEY] } + ids + request.refinedId as Set
    def drawn = objects.findAll {
        it.isAnnotation() && !isResult(it) && (it.getID().toString() in named || ((isCorrection(it) || it.getROI() instanceof RectangleROI) && isNear(it)))
    }
    def refined = objects.find { it.getID().toString() == request.refinedId }
    for (plane in (results + drawn).groupBy { [it.getROI().getZ(), it.getROI().getT()] }.values()) {
        def features = plane.collect { featureOf(it) }
        plane.eachWithIndex { object, n -> request.sent[object.getID().toString()] = features[n].toString() }
        if (request.refinedId == null || refined in plane)
            request.planes << [plane: plane[0].getROI().getImagePlane(), objects: plane, features: features]
    }
    request.total = ids.size() ?: drawn.size()
}

Map optionsFor() {
    return [object_size_um: sizeHint ?: SIZES_UM[chosen.ObjectSize.get()], object_type: chosen.ObjectType.get(), 'class': chosen.Class.get().trim() ?: null]
}

// Answers

PathObject resultOf(JsonObject feature) {
    feature = feature.deepCopy()
    def metadata = feature.getAsJsonObject('properties').remove('metadata').entrySet().collectEntries { [it.getKey(), it.getValue().getAsString()] }
    def result = GEOJSON.fromJson(feature, PathObject)
    try {
        result.getMetadata().putAll(metadata)
    } catch (UnsupportedOperationException e) {
        // QuPath 0.5.1 keeps metadata of detections, too, but offers no method to set them.
        metadata.each { name, value -> result.storeMetadataValue(name, value) }
    }
    return result
}

/** Adds answers to an image without an event: each below its parent, in place of what it replaces unless that changed since. */
List<PathObject> addAnswers(PathObjectHierarchy hierarchy, Collection<JsonObject> answers, Map<String, String> sent) {
    def byId = objectsById(hierarchy)
    def changed = []
    for (answer in answers) {
        def replaced = idsIn(answer, 'replaces').collect { byId[it] }.findAll { it != null && sent[it.getID().toString()] == featureOf(it).toString() }
        def result = answer.get('geometry').isJsonNull() ? null : resultOf(answer)
        def id = result?.getID()?.toString()
        def isDeleted = idsIn(answer, 'sources') && !idsIn(answer, 'sources').any { it in byId }
        if (result != null && (isDeleted || (id in byId && !(byId[id] in replaced))))
            continue
        def parent = byId[textOf(answer, 'parent')] ?: replaced.find()?.getParent() ?: hierarchy.getRootObject()
        def selected = replaced.findAll { hierarchy.getSelectionModel().isSelected(it) }
        replaced.each { hierarchy.removeObjectWithoutUpdate(it, true) }
        changed.addAll(replaced)
        if (result == null)
            continue
        hierarchy.addObjectBelowParent(parent, result, false)
        if (selected)
            hierarchy.getSelectionModel().setSelectedObject(result)
        byId[id] = result
        changed << result
    }
    return changed
}

List<String> idsIn(JsonObject answer, String name) {
    return answer.get(name)?.isJsonArray() ? answer.getAsJsonArray(name).collect { it.getAsString() } : []
}

String textOf(JsonObject object, String name) {
    return object.get(name)?.isJsonPrimitive() ? object.get(name).getAsString() : null
}

/** Takes the answers that have come; those for an image that is not shown any more are kept. */
List<PathObject> takeArrived(Request request) {
    def answers = []
    for (JsonObject answer; (answer = request.arrived.poll()) != null;) {
        request.done++
        def state = textOf(answer, 'state')
        if (answer.get('geometry').isJsonNull() && state != 'gone' && state != 'answered' && state != 'reviewed')
            request.reasons << answer.getAsJsonObject('properties').get('reason').getAsString()
        if (!answer.get('geometry').isJsonNull() || state == 'answered' || state == 'reviewed')
            request.answered++
        answers << answer
    }
    if (!isShown(request.imageData)) {
        request.kept.addAll(answers)
        return []
    }
    def changed = addAnswers(request.imageData.getHierarchy(), answers, request.sent)
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
    def hierarchy = request.imageData.getHierarchy()
    def nothing = PathObjects.createDetectionObject(ROIs.createPointsROI(0, 0, ImagePlane.getDefaultPlane()))
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
    request.imageData.getHierarchy().fireObjectsChangedEvent(this, request.changed, false)
    isOwnEvent = false
    if (request.isLive)
        joinUndoSteps()
    else if (request.select != null && !request.refinedId && !request.select.ids)
        addWorkflowStep(request)
}

/** Takes away the undo steps of a click without its outline, which QuPath made before the outline came. */
void joinUndoSteps() {
    try {
        def steps = gui.getUndoRedoManager().@map.get(liveViewer)?.@undoStack
        (0..<Math.min(openSteps, steps?.size() ?: 0)).each { steps.pop() }
        openSteps = 0
    } catch (MissingFieldException e) {
        logger.debug('This QuPath keeps its undo steps elsewhere, so that a click has two', e)
    }
}

/** Notes the run in QuPath's workflow, as a script that does the same to any image. */
void addWorkflowStep(Request request) {
    def options = request.options.findAll { it.value != null }
    def file = new File(getClass().getProtectionDomain().getCodeSource().getLocation().toURI())
    def script = "new GroovyShell(getClass().getClassLoader()).parse(new File(${JSON.toJson(file.getPath())}))" +
        ".segmentWithoutWindow(getCurrentImageData(), [${options.collect { "'${it.key}': ${it.value instanceof String ? JSON.toJson(it.value) : it.value}" }.join(', ') ?: ':'}])"
    request.imageData.getHistoryWorkflow().addStep(new DefaultScriptableWorkflowStep('WSI-SAM: segment all prompts', options, script.replace('$', '\\$')))
}

/** Saves the answers for an image that was closed since. */
void saveKept(Request request) {
    def project = gui.getProject()
    def entry = project?.getEntry(request.imageData)
    if (entry == null) {
        Platform.runLater { inform("${request.kept.size()} outlines came after their image was closed, and it is in no project: open it and segment it again.") }
        return
    }
    addToEntry(project, entry.getID(), request.kept, request.sent)
    Platform.runLater { inform("${request.kept.size()} answers were saved in ${entry.getImageName()}.") }
}

/** Adds answers to an image of a project, whether it is shown or not. */
void addToEntry(project, String id, List<JsonObject> answers, Map<String, String> sent) {
    def shown = onApplicationThread {
        def imageData = shownImages(project)[id]
        def changed = imageData == null ? [] : addAnswers(imageData.getHierarchy(), answers, sent)
        if (changed)
            imageData.getHierarchy().fireObjectsChangedEvent(this, changed, false)
        imageData
    }
    if (shown != null)
        return
    def entry = project.getImageList().find { it.getID() == id }
    def imageData = entry.readImageData()
    addAnswers(imageData.getHierarchy(), answers, sent)
    entry.saveImageData(imageData)
    imageData.getServer().close()
}

/** Tells whether a viewer shows the image; always true without a window. */
boolean isShown(ImageData imageData) {
    return gui == null || gui.getAllViewers().any { it.getImageData() === imageData }
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
        return request.isCancelled ? null : e.getMessage()
    } catch (IOException | JsonParseException e) {
        logger.debug('The response ended early', e)
        return request.isCancelled ? null : 'The server ended the connection in the middle of its response. See View > Show log or its terminal, and try again.'
    } catch (RuntimeException e) {
        logger.error(e.getMessage(), e)
        return "The script failed: $e. See the log for details (View > Show log)."
    }
}

void report(Request request, String failure) {
    if (failure)
        Dialogs.showErrorNotification(TITLE, wrapped(failure))
    else if (request.reasons && !request.isCancelled)
        Dialogs.showWarningNotification(TITLE, wrapped("No outline for ${request.reasons.size()} of ${request.done}: ${request.reasons[0]}."))
}

/** Requests the outlines on each plane; they arrive in the request. */
void exchange(Request request) {
    for (drawn in request.planes) {
        def asked = drawn.objects.findAll { request.select.ids == null ? !isResult(it) : it.getID().toString() in request.select.ids }
        partsOf(request, drawn, asked).each { exchange(request, it, it.select, null) }
    }
}

/** Splits what is too much for one request by its place: with each part all is sent that lies near. */
List<Map> partsOf(Request request, Map drawn, List<PathObject> asked, Map select = request.select, int reach = reachPx(request.imageData)) {
    def limits = limitsOf.values().find() ?: ask(request, '/v1/info').getAsJsonObject('limits')
    def (prompts, vertices) = ['prompts', 'vertices'].collect { limits.get(it).getAsInt() }
    if (request.refinedId || reach == 0 || (drawn.objects.size() <= prompts && drawn.objects.sum { it.getROI().getNumPoints() } <= vertices / 2))
        return [drawn + [select: select]]
    def area = boundsOf(asked)
    def isFew = asked.size() <= Math.max(1, prompts.intdiv(8))
    def sorted = asked.sort(false) { area.width > area.height ? it.getROI().getCentroidX() : it.getROI().getCentroidY() }
    return (isFew ? [sorted] : sorted.collate(sorted.size() - sorted.size().intdiv(2))).collectMany { part ->
        def around = boundsOf(part)
        around.grow(reach, reach)
        def near = drawn.objects.findIndexValues { around.intersects(boundsOf(it.getROI())) }
        def those = drawn + [objects: drawn.objects[near], features: drawn.features[near]]
        partsOf(request, those, part, select + [ids: part*.getID()*.toString()], isFew ? reach.intdiv(4) : reach)
    }
}

Rectangle boundsOf(List<PathObject> objects) {
    return objects.collect { boundsOf(it.getROI()) }.inject { one, other -> one.union(other) }
}

int reachPx(ImageData imageData) {
    return REACH_UM / (imageData.getServer().getPixelCalibration().getAveragedPixelSizeMicrons() ?: 1)
}

void exchange(Request request, Map drawn, Map select, List<Map> regions, String path = '/v1/segment') {
    def server = request.imageData.getServer()
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
    exchange(request, drawn, select, problem.getAsJsonArray('regions').collect { readRegion(server, it, drawn.plane) }, path)
}

/** Searches a slide that the server can read; what it finds arrives in the request. */
void find(Request request, ImagePlane plane, Map wanted) {
    def problem = post(request, '/v1/find', plane, wanted)
    if (problem != null)
        throw new ServerException(nameOf(problem) == 'slide-outside' ? "To find objects, the server has to read the slide itself, which it cannot: its file is elsewhere, or the image is rotated, cropped or another plane of a stack." : messageOf(problem))
}

/** Sends a request about an image, and reads the answers or returns the problem. */
JsonObject post(Request request, String path, ImagePlane plane, Map document) {
    def response = send(request, 'POST', path, document + [slide: slideOf(request.imageData.getServer(), plane),
        options: request.options.findAll { it.key != 'adapter' }, adapter: request.options.adapter ?: chosen.Model.get() ?: null])
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
    def calibration = server.getPixelCalibration()
    def isPlain = isPlainFile(server) && plane.getZ() == 0 && plane.getT() == 0
    return [
        uri: isPlain ? server.getURIs()[0].toString() : 'qupath:pixels', width: server.getWidth(), height: server.getHeight(),
        mpp_x: calibration.getPixelWidthMicrons(), mpp_y: calibration.getPixelHeightMicrons(),
        downsamples: server.getPreferredDownsamples().toList().findAll { it >= 1 }]
}

/** Tells whether QuPath shows the slide as in its file: not rotated, cropped or otherwise changed. */
boolean isPlainFile(ImageServer server) {
    if (server.getURIs().size() != 1 || server.getBuilder() == null)
        return false
    def builder = JSON.fromJson(GEOJSON.toJson(server.getBuilder(), ServerBuilder), JsonObject)
    while (textOf(builder, 'builderType') == 'pyramidize')
        builder = builder.getAsJsonObject('builder')
    return textOf(builder, 'builderType') == 'uri'
}

/** Reads a region at the resolution that the server asks for, or a finer one. */
Map readRegion(ImageServer server, JsonElement needed, ImagePlane plane) {
    def (x, y, width, height) = ['x', 'y', 'width', 'height'].collect { needed.get(it).getAsInt() }
    double downsample = Math.min(width / needed.get('width_px').getAsInt(), height / needed.get('height_px').getAsInt())
    def image = server.readRegion(RegionRequest.createInstance(
        server.getPath(), Math.max(1d, downsample), x, y, width, height, plane.getZ(), plane.getT()))
    def rgb = new BufferedImage(image.getWidth(), image.getHeight(), BufferedImage.TYPE_INT_RGB)
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
            record.has('features') ? request.arrived.addAll(record.getAsJsonArray('features').toList()) : request.arrived.add(record)
            if (gui != null && !request.isLive && request.isShowing.compareAndSet(false, true))
                Platform.runLater { showArrived(request) }
        }
    }
}

// The server

/** Sends a request, and repeats it while the server is busy or loads its model. */
HttpResponse<InputStream> send(Request request, String method, String path, Object document) {
    def (url, token) = findServer(request)
    checkProtocol(request, url, token)
    return sendTo(request, url, token, method, path, document)
}

HttpResponse<InputStream> sendTo(Request request, String url, String token, String method, String path, Object document) {
    def builder = HttpRequest.newBuilder(uriOf(url + path))
        .header('Accept', path in ['/v1/segment', '/v1/find'] || path.endsWith('/results') ? 'application/geo+json-seq' : 'application/json')
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
        showState('the server loads its model')
        Thread.sleep(Math.min(pause, 2000))
    }
}

HttpResponse<InputStream> sendOnce(Request request, HttpRequest message, String url) {
    if (request.isCancelled)
        throw new CancellationException()
    try {
        request.response = httpClient().sendAsync(message, BodyHandlers.ofInputStream())
        def response = request.response.get()
        request.body = response.body()
        return response
    } catch (ExecutionException e) {
        def cause = e.getCause()
        if (cause instanceof CancellationException)
            throw cause
        if (cause instanceof SSLException)
            throw new ServerException("The certificate of $url is not trusted (${cause.getMessage()}): enter its PEM file in $SETTINGS.")
        if (cause instanceof ConnectException || cause instanceof HttpConnectTimeoutException)
            throw new ServerException("No server responds at $url. $START")
        throw new ServerException("The server at $url ended the connection (${cause.getMessage() ?: cause}). See View > Show log or its terminal, and try again.")
    }
}

/** Refuses a server that this script was not made for. */
void checkProtocol(Request request, String url, String token) {
    if (limitsOf.containsKey(url))
        return
    def response = sendTo(request, url, token, 'GET', '/v1/info', null)
    def info = response.statusCode() == 200 ? readJson(response.body().withCloseable { it.getText('UTF-8') }) : null
    if (response.statusCode() == 404)
        throw new ServerException(strangerAt(response))
    if (response.statusCode() != 200)
        throw new ServerException(messageOf(problemOf(response)))
    if (info?.get('protocol')?.getAsInt() != PROTOCOL)
        throw new ServerException("The server at $url (version ${info == null ? 'unknown' : textOf(info, 'version')}) and the scripts in QuPath do not fit each other: run `wsisam-qupath setup`, and start the server and QuPath again.")
    limitsOf.clear()
    limitsOf[url] = info.getAsJsonObject('limits')
}

/** Finds URL and token: those of the settings, else of a server on this computer, which is started if none runs. */
List<String> findServer(Request request = new Request()) {
    def url = chosen.Server.get().trim().replaceAll('/+$', '')
    def local = localServers()
    def found = url ? local.find { it.url == url } : local.find { answers(it.url) } ?: startServer(request) ?: local.find()
    if (!url && !found)
        throw new ServerException("No server is running on this computer. $START To have QuPath start it by itself, run `wsisam-qupath setup` once. To use a server on another computer, enter its address in $SETTINGS.")
    return [url ?: found.url, chosen.Token.get().trim() ?: found?.token]
}

/** Lists the servers on this computer by the files they left, the newest first; a killed one left its file too. */
List<Map> localServers() {
    def files = new File(System.getProperty('user.home'), '.wsisam-qupath/servers').listFiles({ it.isFile() && it.name.endsWith('.json') } as FileFilter)
    return (files ?: [] as File[]).toList().sort { -it.lastModified() }.findResults { file ->
        try {
            def about = readJson(file.getText('UTF-8'))
            return [url: about.get('url').getAsString(), token: about.get('token').getAsString(), pid: about.get('pid')?.getAsLong()]
        } catch (IOException | RuntimeException e) {
            logger.debug("$file: ${e.getMessage()}", e)
            return null
        }
    }
}

/** Tells whether a server of this program answers there. */
boolean answers(String url) {
    try {
        def asked = HttpRequest.newBuilder(uriOf(url + '/healthz')).timeout(Duration.ofSeconds(2)).build()
        def response = httpClient().send(asked, BodyHandlers.ofString())
        return response.statusCode() == 200 && readJson(response.body())?.has('state')
    } catch (IOException | ServerException e) {
        logger.debug("$url: ${e.getMessage()}", e)
        return false
    }
}

/** Starts the program that `setup` noted, unless this did so already; it stops when QuPath ends. Null without a note. */
synchronized Map startServer(Request request) {
    def note = new File(System.getProperty('user.home'), '.wsisam-qupath/program.json')
    def command = note.isFile() ? readJson(note.getText('UTF-8'))?.getAsJsonArray('command')?.collect { it.getAsString() } : null
    if (command == null)
        return null
    if (!ownServer?.isAlive()) {
        showState('the server starts')
        logger.info("Starting ${command.join(' ')}")
        ownServer = new ProcessBuilder(command + ['serve', '--port', '0', '--stop-with-input']).redirectErrorStream(true).start()
        def output = ownServer.getInputStream()
        Thread.startDaemon('wsi-sam server') { output.eachLine { if (!it.startsWith('Token:')) logger.info(it) } }
    }
    while (ownServer.isAlive() && !request.isCancelled) {
        def found = localServers().find { it.pid == ownServer.pid() }
        if (found)
            return found
        Thread.sleep(200)
    }
    throw new ServerException('The server that QuPath started has ended: see View > Show log for the reason.')
}

void startFromMenu() {
    def request = new Request()
    inBackground(request, { findServer(request) }) { failure -> failure ? report(request, failure) : inform('The server runs.') }
}

void stopServer() {
    ownServer?.isAlive() ? ownServer.destroy() : inform('QuPath has started no server: stop it where it was started, with Ctrl+C.')
}

URI uriOf(String text) {
    try {
        def uri = new URI(text)
        if (uri.getHost() != null && uri.getScheme() in ['http', 'https'])
            return uri
    } catch (URISyntaxException e) {
        logger.debug(e.getMessage(), e)
    }
    throw new ServerException("'$text' is not the address of a server: enter it in $SETTINGS like http://127.0.0.1:8473.")
}

/** Makes one client for all requests, as it keeps connections open. */
synchronized HttpClient httpClient() {
    def certificate = chosen.Certificate.get().trim()
    if (client == null || certificate != clientCertificate) {
        def builder = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(Duration.ofSeconds(10))
        if (certificate)
            builder.sslContext(trusting(new File(certificate)))
        client = builder.build()
        clientCertificate = certificate
    }
    return client
}

SSLContext trusting(File certificate) {
    if (!certificate.isFile())
        throw new ServerException("There is no file $certificate: enter the file of the server's certificate in $SETTINGS.")
    def store = KeyStore.getInstance(KeyStore.getDefaultType())
    store.load(null, null)
    certificate.withInputStream { stream ->
        CertificateFactory.getInstance('X.509').generateCertificates(stream).eachWithIndex { one, n -> store.setCertificateEntry("$n", one) }
    }
    def factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm())
    factory.init(store)
    def context = SSLContext.getInstance('TLS')
    context.init(null, factory.getTrustManagers(), null)
    return context
}

JsonObject readJson(String text) {
    try {
        return JSON.fromJson(text, JsonObject)
    } catch (JsonParseException e) {
        logger.debug(e.getMessage(), e)
        return null
    }
}

/** Reads the server's error message. */
JsonObject problemOf(HttpResponse<InputStream> response) {
    def problem = readJson(response.body().withCloseable { it.getText('UTF-8') })
    if (problem?.has('detail') && problem.has('type'))
        return problem
    throw new ServerException(strangerAt(response))
}

String strangerAt(HttpResponse response) {
    return "${response.uri().resolve('/')} (status ${response.statusCode()}) is not a server of wsisam-qupath, or it is too old: update it, or enter another one in $SETTINGS."
}

String nameOf(JsonObject problem) {
    return problem.get('type').getAsString().tokenize(':')[-1]
}

String messageOf(JsonObject problem) {
    def id = textOf(problem, 'instance')?.tokenize(':')?.last()
    def hint = nameOf(problem) == 'unauthorized' ? " For a server on this computer the script finds the token by itself; otherwise enter it in $SETTINGS." : ''
    return problem.get('detail').getAsString() + hint + (id ? "\n(request $id)" : '')
}

/** Sends a request and returns the server's JSON. */
JsonObject ask(Request request, String path, String method = 'GET', Object document = null) {
    def response = send(request, method, path, document)
    if (response.statusCode() >= 300)
        throw new ServerException(messageOf(problemOf(response)))
    def answer = response.body().withCloseable { it.getText('UTF-8') }
    return answer ? JSON.fromJson(answer, JsonObject) : null
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
    watch(isOn ? gui.getImageData() : null)
}

PauseTransition pause(int milliseconds, Closure then) {
    def pause = new PauseTransition(new javafx.util.Duration(milliseconds))
    pause.setOnFinished { Platform.runLater { then() } }
    return pause
}

@Field final ChangeListener liveImageListener = { o, was, now -> watch(now) } as ChangeListener

@Field final PathObjectHierarchyListener liveListener = { event -> noteEvent(event.isChanging()) } as PathObjectHierarchyListener

@Field final EventHandler<KeyEvent> liveKeys = { event ->
    def step = [(KeyCode.OPEN_BRACKET): -1, (KeyCode.CLOSE_BRACKET): 1][event.getCode()]
    if (event.getCode() == KeyCode.ENTER)
        acceptObject()
    else if (step)
        chooseCandidate(step)
    if (step || event.getCode() == KeyCode.ENTER)
        event.consume()
} as EventHandler

@Field final EventHandler<MouseEvent> liveMouse = { event ->
    def point = liveViewer.componentPointToImagePoint(event.getX(), event.getY(), null, false)
    if (event.getEventType() == MouseEvent.MOUSE_RELEASED)
        released = System.nanoTime()
    cursor = [hundredths(point.getX()), hundredths(point.getY())]
    if (event.getEventType() != MouseEvent.MOUSE_MOVED || outlines.preview == null || !outlines.preview.contains(*cursor))
        showPreview(null)
    if (event.getEventType() == MouseEvent.MOUSE_MOVED && chosen.Preview.get() == 'yes')
        liveRest.playFromStart()
    else
        liveRest.stop()
} as EventHandler

void noteEvent(boolean isChanging) {
    if (isChanging || isOwnEvent)
        return
    def root = liveImage?.getHierarchy()?.getRootObject()
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
    liveImage?.getHierarchy()?.removeListener(liveListener)
    [liveRequest, livePreview].each { it?.cancel() }
    livePause?.stop()
    liveRest?.stop()
    if (liveViewer != null) {
        liveViewer.getView().removeEventFilter(KeyEvent.KEY_PRESSED, liveKeys)
        liveViewer.getView().removeEventFilter(MouseEvent.ANY, liveMouse)
        liveViewer.getView().getChildren().remove(liveLabel)
        liveViewer.getCustomOverlayLayers().remove(outlines)
    }
    liveRequest = livePreview = null
    liveDirty.clear()
    forgetObject()
    liveImage = imageData
    liveViewer = imageData == null ? null : gui.getAllViewers().find { it.getImageData() === imageData }
    if (liveViewer == null)
        return
    liveSeen = drawnIn(imageData)
    liveRoot = imageData.getHierarchy().getRootObject()
    openSteps = 0
    imageData.getHierarchy().addListener(liveListener)
    outlines = new Outlines(liveViewer.getOverlayOptions())
    liveViewer.getCustomOverlayLayers().add(outlines)
    liveViewer.getView().addEventFilter(KeyEvent.KEY_PRESSED, liveKeys)
    liveViewer.getView().addEventFilter(MouseEvent.ANY, liveMouse)
    liveLabel = new Label()
    liveLabel.setId('wsisam-line')
    liveLabel.setStyle('-fx-background-color: rgba(0,0,0,0.65); -fx-text-fill: white; -fx-padding: 4 8; -fx-background-radius: 4')
    liveLabel.setMouseTransparent(true)
    StackPane.setAlignment(liveLabel, Pos.TOP_LEFT)
    StackPane.setMargin(liveLabel, new Insets(10))
    liveViewer.getView().getChildren().add(liveLabel)
    showState('draw a rectangle around an object, or click in it with the points tool')
    // So that a server runs and its model is loaded before the first click.
    inBackground(new Request(), { ask(new Request(), '/v1/info') }) { failure -> showState(failure ? wrapped(failure) : null) }
}

/** Notes how each annotation is drawn, to see which one changes. */
Map<String, List> drawnIn(ImageData imageData) {
    return imageData.getHierarchy().getAnnotationObjects().findAll { it.hasROI() && !isResult(it) }
        .collectEntries { [it.getID().toString(), [it.getROI(), it.getPathClass()]] }
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
    outlines.results.removeIf { it.getParent() == null }
    if (!liveDirty) {
        openSteps = 0
        return
    }
    liveRequest?.cancel()
    livePreview?.cancel()
    def area = new Rectangle(liveArea)
    area.grow(reachPx(liveImage), reachPx(liveImage))
    def select = [ids: liveDirty as List, area: [x: Math.max(0, liveArea.getX()), y: Math.max(0, liveArea.getY()), width: liveArea.getWidth(), height: liveArea.getHeight()], follow: true]
    if (!askPixelSize(liveImage)) {
        liveItem.setSelected(false)
        return
    }
    askLive(requestFor(liveImage, refinedId ? [ids: liveDirty as List] : select, refinedId, [candidates: 3], area), '…')
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
    logger.debug('Outline drawn {} ms after the mouse: QuPath told of the change after {} ms, the answer took {} ms', *times)
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
    showState(request.reasons ? request.reasons[0] : null)
}

boolean isSame(List before, List now) {
    return before != null && before[1] == now[1] && (before[0].is(now[0]) ||
        (before[0].getClass() == now[0].getClass() && before[0].getAllPoints() == now[0].getAllPoints()))
}

/** The area of the points that were added or taken away, or of what was drawn. */
Rectangle changedArea(ROI before, ROI now) {
    if (now.isPoint() && before?.isPoint()) {
        def (old, recent) = [before.getAllPoints(), now.getAllPoints()]
        def points = (recent - old) + (old - recent)
        if (points)
            return boundsOf(ROIs.createPointsROI(points, now.getImagePlane()))
    }
    return boundsOf(now.isEmpty() && before != null ? before : now)
}

Rectangle boundsOf(ROI roi) {
    return new Rectangle((roi.getBoundsX() as int) - 1, (roi.getBoundsY() as int) - 1, (roi.getBoundsWidth() as int) + 3, (roi.getBoundsHeight() as int) + 3)
}

/** Asks for what a click under the resting cursor would give; the server does so when it has nothing else to do. */
void preview() {
    if (liveImage == null || liveRequest != null || gui.getToolManager().getSelectedTool() != PathTools.POINTS)
        return
    def selected = liveViewer.getSelectedObject()
    def points = selected != null && isPoints(selected) ? selected.getROI().getAllPoints().collect { [it.getX(), it.getY()] } : []
    def plane = liveViewer.getImagePlane()
    def feature = [type: 'Feature', id: 'preview', geometry: [type: 'MultiPoint', coordinates: points + [cursor]], properties: [objectType: 'annotation']]
    livePreview?.cancel()
    def request = livePreview = new Request(imageData: liveImage, select: null, isLive: true, options: optionsFor())
    inBackground(request, { exchange(request, [plane: plane, features: [feature]], null, null, '/v1/prepare') }) { failure ->
        def answer = request.arrived.poll()
        if (request.is(livePreview) && !failure && liveRequest == null && answer != null && !answer.get('geometry').isJsonNull())
            showPreview(RoiTools.getShape(resultOf(answer).getROI()))
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
    def results = changed.findAll { it.getParent() != null }
    outlines.results.addAll(results)
    def answer = answers.find { it.has('others') }
    candidates = answer == null ? answers.findAll { !it.get('geometry').isJsonNull() } : ([answer] + answer.getAsJsonArray('others').collect { it.getAsJsonObject() }).sort { resultOf(it).getROI().getArea() }
    candidateId = answer == null ? results ? results[-1].getID().toString() : null : textOf(answer, 'id')
    if (refinedId && results)
        refinedId = results[-1].getID().toString()
    showPreview(null)
}

/** Goes to the next smaller or larger thing that the last click may mean; the next object has that size, too. */
void chooseCandidate(int step) {
    int index = candidates.findIndexOf { textOf(it, 'id') == candidateId } + step
    def hierarchy = liveImage.getHierarchy()
    def shown = objectsById(hierarchy)[candidateId]
    if (shown == null)
        return
    if (index < 0 || index >= candidates.size()) {
        askForSize(shown, step < 0 ? 0.4d : 2.5d)
        return
    }
    def result = resultOf(candidates[index])
    def parent = shown.getParent()
    hierarchy.removeObjectWithoutUpdate(shown, true)
    hierarchy.addObjectBelowParent(parent, result, false)
    outlines.results << result
    candidateId = result.getID().toString()
    sizeHint = sizeOf(result)
    hierarchy.fireObjectsChangedEvent(this, [shown, result], false)
    showState("${index + 1} of ${candidates.size()}, ${sizeHint as int} µm")
}

/** Asks again for an object of another size, where the server had no other candidate. */
void askForSize(PathObject shown, double factor) {
    sizeHint = sizeOf(shown) * factor
    askLive(requestFor(liveImage, [ids: [shown.getID().toString()]], null, [candidates: 3]), "about ${sizeHint as int} µm …")
}

double sizeOf(PathObject result) {
    def region = ImageRegion.createInstance(result.getROI())
    return Math.max(region.getWidth(), region.getHeight()) * liveImage.getServer().getPixelCalibration().getAveragedPixelSizeMicrons()
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

/** Writes a line on the viewer: what live mode does, and by which keys. */
void showState(String state = null) {
    liveState = state ?: ''
    if (liveLabel == null)
        return
    Platform.runLater {
        def isOutside = PathPrefs.autoSetAnnotationClassProperty().get()?.toString()?.endsWith('*')
        def words = ['WSI-SAM live', isOutside ? 'clicks OUTSIDE' : 'clicks inside', chosen.Class.get() ? "class ${chosen.Class.get()}" : null, chosen.Model.get() ?: null, liveState ?: 'ready']
        liveLabel?.setText("${words.findAll().join('  ·  ')}\nX: inside or outside   Enter: next object${candidateId ? '   [ ]: smaller, larger' : ''}   Ctrl+Z: back")
    }
}

// Project jobs

/** Lets the server segment the project. It does not write the images shown here; their results are added here. */
void segmentProject() {
    def project = gui.getProject()
    if (project == null) {
        inform('Open a project first, or use Segment all prompts in this image.')
        return
    }
    def text = "The server segments all rectangles and points in ${project.size()} images and saves the outlines in the images that are not open here. Do not edit those images until it has finished."
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
    if (changed && !Dialogs.showConfirmDialog(TITLE, 'The server reads saved images only. Save the changes of the open image first?'))
        return false
    changed.each { project.getEntry(it).saveImageData(it) }
    project.syncChanges()   // which keeps a pixel size that was entered
    return true
}

/** Gives the images of a project that the viewers show, by their ids. */
Map<String, ImageData> shownImages(project) {
    return gui.getAllViewers()*.getImageData().findAll { it != null && project.getEntry(it) != null }
        .collectEntries { [project.getEntry(it).getID(), it] }
}

/** Notes the results in images that are shown: only those that nobody changes until the job ends are replaced. */
Set<String> noteShown(Request request, project) {
    return onApplicationThread {
        def shown = shownImages(project)
        shown.values().each { imageData ->
            imageData.getHierarchy().getAllObjects(false).findAll { isResult(it) }.each { request.sent.putIfAbsent(it.getID().toString(), featureOf(it).toString()) }
        }
        shown.keySet()
    }
}

/** Has a job done. Returns a summary for the user; null if it was cancelled. */
String runJob(Request request, project) {
    def shown = noteShown(request, project)
    def job = ask(request, '/v1/jobs', 'POST', [
        project: project.getPath().toUri().toString(), project_is_open: true, open_images: shown as List, options: request.options])
    def path = "/v1/jobs/${textOf(job, 'id')}"
    job = follow(request, path, job) {
        request.done = it.get('images_ended').getAsInt()
        request.total = it.get('images').isJsonNull() ? 0 : it.get('images').getAsInt()
        def now = noteShown(request, project)
        if (now != shown)
            ask(new Request(), "$path/open-images", 'PUT', [images: now as List])
        shown = now
    }
    if (job == null)
        return null
    def records = send(new Request(), 'GET', "$path/results", null).body().withCloseable { it.readLines('UTF-8') }
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
    def project = gui.getProject()
    if (project == null) {
        inform('Open a project with annotated images first.')
        return
    }
    def text = wrapped('The server trains a model on the areas that you drew or took over as annotations, in all saved images, and compares it with its present one on slides that it leaves out. This takes minutes to hours; you can go on working here. Name of the new model:')
    def name = Dialogs.showInputDialog(TITLE, text, project.getPath().getParent().getFileName().toString().replaceAll('[^A-Za-z0-9 _-]', '-'))
    if (!name || !saveShown(project))
        return
    def request = new Request(doing: 'starting')
    haveDone(request, { runTraining(request, project, name) }) { offer(it) }
}

JsonObject runTraining(Request request, project, String name) {
    def training = ask(request, '/v1/trainings', 'POST', [project: project.getPath().toUri().toString(), name: name.trim()])
    def path = "/v1/trainings/${textOf(training, 'id')}"
    training = follow(request, path, training) {
        request.doing = textOf(it, 'what')
        request.done = it.get('done').isJsonNull() ? 0 : it.get('done').getAsInt()
        request.total = it.get('total').isJsonNull() ? 0 : it.get('total').getAsInt()
    }
    if (training?.get('has_report')?.getAsBoolean()) {
        def page = File.createTempFile('wsi-sam-training', '.html')
        page.bytes = send(new Request(), 'GET', "$path/report", null).body().withCloseable { it.bytes }
        page.deleteOnExit()
        Platform.runLater { QuPathGUI.openInBrowser(page.toURI().toString()) }
    }
    return training
}

void offer(JsonObject training) {
    def summary = wrapped(textOf(training, 'summary'))
    if (textOf(training, 'adapter') == null)
        Dialogs.showPlainMessage(TITLE, summary)
    else if (Dialogs.showYesNoDialog(TITLE, "$summary\n\nUse it from now on? You can change this in the settings (Model)."))
        chosen.Model.set(textOf(training, 'adapter'))
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
    def bar = new ProgressBar()
    def label = new Label()
    def cancel = new Button('Cancel')
    def row = new HBox(10, label, bar, cancel)
    row.setPadding(new Insets(15))
    def stage = new Stage()
    stage.initOwner(gui.getStage())
    stage.setTitle(TITLE)
    stage.setResizable(false)
    stage.setScene(new Scene(row))
    cancel.setOnAction { request.cancel() }
    stage.setOnCloseRequest { request.cancel() }
    def tick = new PauseTransition(new javafx.util.Duration(700))
    tick.setOnFinished {
        label.setText(request.total ? "${request.doing}: ${request.done} of ${request.total}" : request.done ? "${request.doing}: ${request.done}" : request.doing)
        bar.setProgress(request.done && request.total ? request.done / request.total : ProgressBar.INDETERMINATE_PROGRESS)
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
    if (!imageData.getServer().isRGB())
        return 'This image is not RGB: only brightfield images can be segmented.'
    return imageData.getServer().getPixelCalibration().hasPixelSizeMicrons() ? null : 'This image has no pixel size: double-click Pixel width in QuPath\'s Image tab and enter it.'
}

/** Asks once for the pixel size of an image that has none, and sets it in the image. */
boolean askPixelSize(ImageData imageData) {
    def server = imageData.getServer()
    if (server.isRGB() && !server.getPixelCalibration().hasPixelSizeMicrons()) {
        def size = Dialogs.showInputDialog(TITLE, 'This image has no pixel size. How wide is one pixel, in µm?\n(0.25 for a scan at 40x, 0.5 at 20x.) The image keeps this pixel size.', 0.5d)
        if (size > 0.01 && size < 100)
            imageData.updateServerMetadata(new ImageServerMetadata.Builder(server.getMetadata()).pixelSizeMicrons(size, size).build())
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
        if (chosen.Server.get() || localServers().any { answers(it.url) })
            models += idsIn(ask(new Request(), '/v1/info'), 'adapters')
    }
    inBackground(new Request(), addModels) { failure -> showSettings(models) }
}

void showSettings(List<String> models) {
    def classes = ['(that of each prompt)'] + gui.getAvailablePathClasses()*.toString().findAll { it != 'null' && !it.endsWith('*') }
    def rows = [
        ObjectType: ['Results are', ['detection', 'annotation'], 'Detections are lightweight; annotations can be edited by hand'],
        Class: ['Class of all results', classes, 'The class of each prompt, or this one for all'],
        ObjectSize: ['Points mark a', SIZES_UM.keySet() as List, 'Size of objects that are marked by points only. Rectangles show the size themselves'],
        Model: ['Model', models, 'Which of the models of the server answers'],
        Preview: ['Outline under a resting cursor', ['yes', 'no'], 'In live mode with the points tool: what a click would give'],
        Server: ['Address of a server elsewhere', null, 'Such as https://gpu.example.org:8473. Empty: the server on this computer, which is found automatically'],
        Token: ['Its token', null, 'Token that the server printed when it started. Stored in the preferences of QuPath'],
        Certificate: ['Its certificate', null, 'PEM file to trust if the server uses a self-made certificate']]
    def grid = new GridPane()
    grid.setHgap(10)
    grid.setVgap(8)
    def fields = [:]
    rows.eachWithIndex { name, row, n ->
        def field = row[1] == null ? new TextField(chosen[name].get()) : new ComboBox()
        if (row[1] != null) {
            field.getItems().setAll((row[1] + chosen[name].get()).findAll().unique())
            field.setValue(chosen[name].get() ?: row[1][0])
        }
        field.setTooltip(new javafx.scene.control.Tooltip(row[2]))
        field.setMaxWidth(Double.MAX_VALUE)
        fields[name] = field
        grid.addRow(n, new Label(row[0]), field)
    }
    def choose = new Button('Choose…')
    choose.setOnAction { fields.Certificate.setText(FileChoosers.promptForFile(TITLE)?.getPath() ?: fields.Certificate.getText()) }
    grid.add(choose, 2, rows.size() - 1)
    if (!Dialogs.showConfirmDialog(TITLE, grid))
        return
    fields.each { name, field -> chosen[name].set((field instanceof TextField ? field.getText() : field.getValue().replaceAll('^\\(.*', '')).trim()) }
    sizeHint = null
    showState()
}

/** Shows the server's own page. */
void showServerStatus() {
    def url = null
    def request = new Request()
    inBackground(request, { url = findServer(request)[0] }) { failure -> failure ? report(request, failure) : QuPathGUI.openInBrowser("$url/") }
}

void showHelp() {
    QuPathGUI.openInBrowser(HELP)
}
