/**
 * Outlines the object in a rectangle or at a click, with the server started by `wsisam-qupath serve`.
 * For QuPath 0.5.1 to 0.7.0.
 *
 * Run this file once in QuPath's script editor (Ctrl+R), or make it QuPath's startup script: it puts
 * its commands under Extensions > WSI-SAM. Without a window (`QuPath script -p ... -i ... -s`) it
 * segments all prompts of the image.
 *
 * Prompts are rectangles and points. Points of a class that ends in *, such as Ignore*, lie outside
 * of the object. Each result is added below its prompt, and replaced when the prompt is segmented
 * again, unless a user locked, named, reclassified or edited it.
 */

import com.google.gson.Gson
import com.google.gson.GsonBuilder
import com.google.gson.JsonObject
import com.google.gson.JsonParseException
import groovy.transform.CompileStatic
import groovy.transform.Field
import java.awt.Color
import java.awt.image.BufferedImage
import java.net.http.HttpClient
import java.net.http.HttpRequest
import java.net.http.HttpRequest.BodyPublishers
import java.net.http.HttpResponse
import java.net.http.HttpResponse.BodyHandlers
import java.security.KeyStore
import java.security.cert.CertificateFactory
import java.time.Duration
import java.util.concurrent.Callable
import java.util.concurrent.CancellationException
import java.util.concurrent.CompletableFuture
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.ExecutionException
import java.util.concurrent.FutureTask
import java.util.concurrent.atomic.AtomicBoolean
import javafx.animation.PauseTransition
import javafx.application.Platform
import javafx.beans.property.StringProperty
import javafx.beans.value.ChangeListener
import javafx.geometry.Insets
import javafx.scene.Scene
import javafx.scene.control.Button
import javafx.scene.control.CheckMenuItem
import javafx.scene.control.Label
import javafx.scene.control.ProgressBar
import javafx.scene.input.KeyCombination
import javafx.scene.layout.HBox
import javafx.stage.Stage
import javax.imageio.ImageIO
import javax.net.ssl.SSLContext
import javax.net.ssl.SSLException
import javax.net.ssl.TrustManagerFactory
import org.locationtech.jts.geom.Geometry
import org.slf4j.Logger
import org.slf4j.LoggerFactory
import qupath.fx.dialogs.Dialogs
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.prefs.PathPrefs
import qupath.lib.gui.tools.GuiTools
import qupath.lib.gui.tools.MenuTools
import qupath.lib.gui.viewer.tools.PathTools
import qupath.lib.images.ImageData
import qupath.lib.images.servers.ImageServer
import qupath.lib.images.servers.ImageServerBuilder.ServerBuilder
import qupath.lib.images.servers.ImageServerMetadata
import qupath.lib.io.GsonTools
import qupath.lib.objects.PathObject
import qupath.lib.objects.PathObjects
import qupath.lib.objects.classes.PathClass
import qupath.lib.objects.hierarchy.PathObjectHierarchy
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.plugins.parameters.ParameterList
import qupath.lib.regions.ImagePlane
import qupath.lib.regions.RegionRequest
import qupath.lib.roi.ROIs
import qupath.lib.roi.RectangleROI
import qupath.lib.roi.interfaces.ROI
import qupath.lib.scripting.QP

@Field final String TITLE = 'WSI-SAM'
@Field final String MENU = 'Extensions>WSI-SAM'
@Field final String START = 'Start it in a terminal with `wsisam-qupath serve` and try again.'
@Field final String SETTINGS = 'Extensions > WSI-SAM > Settings'
@Field final String OUTSIDE = 'Ignore*'
@Field final String PROMPT_KEY = 'wsisam_prompt_id'
@Field final String RECORD_SEPARATOR = '\u001e'
@Field final Duration PAUSE_BEFORE_SENDING = Duration.ofMillis(250)
@Field final Duration LONGEST_WAIT = Duration.ofSeconds(60)
@Field final int LIVE_PROMPTS_AT_ONCE = 10
@Field final int PROMPTS_AT_ONCE = 500
@Field final int PROMPTS_WITH_PIXELS = 8
@Field final Map<String, Double> OBJECT_SIZES_UM =
    ['unknown size': null, 'nucleus (10 µm)': 10d, 'gland (60 µm)': 60d, 'region (300 µm)': 300d]

@Field final Logger logger = LoggerFactory.getLogger('wsi-sam')
@Field final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create()
@Field final Gson GEOJSON = GsonTools.getInstance()
@Field final QuPathGUI gui = QuPathGUI.getInstance()

@Field final StringProperty serverProperty = PathPrefs.createPersistentPreference('wsisamServer', '')
@Field final StringProperty tokenProperty = PathPrefs.createPersistentPreference('wsisamToken', '')
@Field final StringProperty certificateProperty = PathPrefs.createPersistentPreference('wsisamCertificate', '')
@Field final StringProperty classProperty = PathPrefs.createPersistentPreference('wsisamClass', '')
@Field final StringProperty objectTypeProperty = PathPrefs.createPersistentPreference('wsisamObjectType', 'detection')
@Field final StringProperty objectSizeProperty = PathPrefs.createPersistentPreference('wsisamObjectSize', 'unknown size')

@Field HttpClient client
@Field String clientCertificate

/** Class and selected object to return to after clicking outside of the object. */
@Field PathClass classInside
@Field UUID idInside

/** State of live mode for the image that it watches. */
@Field ImageData liveImage
@Field PathObject liveRoot
@Field PauseTransition livePause
@Field final Map<String, String> liveSeen = [:]
@Field final Map<String, Request> liveRequests = [:]
/** The prompt, as it was sent, of each result, by the id of the result. */
@Field final Map<String, Prompt> answered = Collections.synchronizedMap(new HashMap<String, Prompt>())

/** One object to outline, as it is sent to the server. */
class Prompt {
    String id                       // of the annotation; the server derives the result's id from it
    String parentId                 // of the object below which the result is added; null is the root
    ImagePlane plane
    Set<String> sources = []        // ids of the annotations that the prompt consists of
    Map area                        // its geometry, or null
    String pathClass
    Set positives = []              // [x, y]
    Set negatives = []
    List<Map> features = []
    Map refine                      // an earlier result, as a feature
    String replacedId               // of the object that the result replaces
    boolean isReplacementOfAny      // even one that a user changed

    String getSignature() { [area, pathClass, positives, negatives].toString() }

    boolean extendsClicksOf(Prompt other) {
        area == other.area && pathClass == other.pathClass &&
            positives.containsAll(other.positives) && negatives.containsAll(other.negatives)
    }
}

/** Prompts that were sent together. */
class Request {
    ImageData imageData
    Map<String, Prompt> prompts
    String doing = 'prompts'
    volatile int done
    volatile int total
    volatile boolean isCancelled
    volatile CompletableFuture response
    volatile Closeable body
    final Queue<JsonObject> arrived = new ConcurrentLinkedQueue<>()
    final AtomicBoolean isShowing = new AtomicBoolean()
    final List<PathObject> changed = []         // touched by one thread only
    final List<String> reasons = []

    /** Closes the connection, which tells the server to stop. */
    void cancel() {
        isCancelled = true
        response?.cancel(true)
        body?.close()
    }
}

/** An error that the user can fix; its message says how. */
class ServerException extends IOException {
    ServerException(String message) { super(message) }
}

if (gui == null)
    segmentWithoutWindow()
else
    Platform.isFxApplicationThread() ? installCommands() : Platform.runLater { installCommands() }

// Commands

/** Adds the commands to the menu, in place of those of an earlier run. */
void installCommands() {
    def menu = gui.getMenu(MENU, true)
    menu.getItems().findAll { it instanceof CheckMenuItem }.each { it.setSelected(false) }
    menu.getItems().clear()
    def live = new CheckMenuItem('Live mode')
    live.selectedProperty().addListener({ o, was, now -> now ? startLiveMode(live) : stopLiveMode() } as ChangeListener)
    installImageDataCommand('Segment selected') { segmentSelected(it) }
    installImageDataCommand('Segment all prompts in this image') { segmentAll(it) }
    gui.installCommand("$MENU>Segment whole project…") { segmentProject() }
    def outside = new CheckMenuItem('Click outside of the object')
    outside.selectedProperty().addListener({ o, was, now -> now ? clickOutside() : clickInside() } as ChangeListener)
    MenuTools.addMenuItems(menu, null, live, outside)
    gui.setAccelerator(outside, KeyCombination.valueOf('X'))
    installImageDataCommand('Refine selected with points') { refineSelected(it) }
    installImageDataCommand('Turn detections into annotations') { turnIntoAnnotations(it) }
    MenuTools.addMenuItems(menu, [null] as Object[])
    gui.installCommand("$MENU>Settings…") { showSettings() }
    gui.installCommand("$MENU>Server status") { showServerStatus() }
    logger.info('Extensions > WSI-SAM is installed')
}

void installImageDataCommand(String name, Closure command) {
    gui.installImageDataCommand("$MENU>$name", { ImageData imageData -> command(imageData) })
}

void segmentSelected(ImageData imageData) {
    def hierarchy = imageData.getHierarchy()
    def byId = objectsById(hierarchy)
    def wanted = hierarchy.getSelectionModel().getSelectedObjects()
        .collect { isResult(it) ? byId[metadataOf(it)[PROMPT_KEY]] : it }
        .findAll { isPrompt(it) || isOutline(it) } as Set
    // Negative points alone are no prompt; selecting them selects the prompts that they belong to.
    def prompts = promptsIn(hierarchy, wanted).findAll { prompt ->
        wanted.any { it.getID().toString() in prompt.sources }
    }
    if (prompts)
        segment(imageData, prompts)
    else
        inform('Select a rectangle, points or a rough outline first. To correct a result, use Refine selected with points.')
}

void segmentAll(ImageData imageData) {
    def prompts = promptsIn(imageData.getHierarchy())
    if (prompts)
        segment(imageData, prompts)
    else
        inform('There are no prompts: draw rectangles around objects, or points inside of them.')
}

/**
 * Corrects the selected area with the selected points, or with the points in and near it. Without a
 * selected area, corrects the result nearest to the points.
 */
void refineSelected(ImageData imageData) {
    def hierarchy = imageData.getHierarchy()
    def selected = hierarchy.getSelectionModel().getSelectedObjects()
    def points = selected.findAll { isPoints(it) }
    def areas = selected.findAll { it.hasROI() && it.getROI().isArea() && (isResult(it) || !isPrompt(it)) }
    def area = areas.size() == 1 ? areas[0] : areas.isEmpty() && points ? nearestResult(hierarchy, points[0].getROI()) : null
    if (area == null) {
        inform('Select a result or outline to refine, or the points that correct a result.')
        return
    }
    if (area.isLocked()) {
        inform('This outline is locked: unlock it first (right-click > Annotations > Unlock).')
        return
    }
    def prompt = refinement(hierarchy, area, points)
    if (prompt == null) {
        inform('Add points where the outline is too small, and points of a class that ends in * (such as Ignore*) where it is too large, then try again.')
        return
    }
    segment(imageData, [prompt])
}

PathObject nearestResult(PathObjectHierarchy hierarchy, ROI points) {
    def point = points.getAllPoints()[0]
    return hierarchy.getAllObjects(false)
        .findAll { isResult(it) && samePlane(it.getROI(), points) && isNear(it.getROI(), point.getX(), point.getY()) }
        .min { Math.hypot(it.getROI().getCentroidX() - point.getX(), it.getROI().getCentroidY() - point.getY()) }
}

/** Turns the selected detections, or else all results, into annotations. */
void turnIntoAnnotations(ImageData imageData) {
    def hierarchy = imageData.getHierarchy()
    def model = hierarchy.getSelectionModel()
    def selected = model.getSelectedObjects().findAll { isPlainDetection(it) }
    def detections = selected ?: hierarchy.getDetectionObjects().findAll { isPlainDetection(it) && isResult(it) }
    if (!detections) {
        inform('This image has no results that are detections.')
        return
    }
    def annotations = detections.collect { asAnnotation(it) }
    [detections, annotations].transpose().each { detection, annotation ->
        def parent = detection.getParent()
        hierarchy.removeObjectWithoutUpdate(detection, true)
        hierarchy.addObjectBelowParent(parent, annotation, false)
    }
    if (selected)
        model.setSelectedObjects(annotations, annotations[-1])
    hierarchy.fireObjectsChangedEvent(this, detections + annotations, false)
}

PathObject asAnnotation(PathObject detection) {
    def annotation = PathObjects.createAnnotationObject(detection.getROI(), detection.getPathClass())
    annotation.setName(detection.getName())
    detection.getMeasurements().each { name, value -> annotation.getMeasurementList().put(name, value as double) }
    annotation.getMetadata().putAll(metadataOf(detection))
    return annotation
}

/** Segments all prompts of the image that is open in this thread. */
void segmentWithoutWindow() {
    def imageData = QP.getCurrentImageData()
    if (imageData == null)
        throw new ServerException('No image is open: name one with -i.')
    def prompts = promptsIn(imageData.getHierarchy())
    def request = requestFor(imageData, prompts)
    checkPixelSize(imageData)
    exchange(request)
    finish(request)
    println "prompts: ${prompts.size()}, without outline: ${request.reasons}"
}

/** Makes the points tool mark points outside of the object, added to existing ones on this plane. */
void clickOutside() {
    classInside = PathPrefs.autoSetAnnotationClassProperty().get()
    PathPrefs.autoSetAnnotationClassProperty().set(PathClass.fromString(OUTSIDE))
    gui.getToolManager().setSelectedTool(PathTools.POINTS)
    def viewer = gui.getViewer()
    idInside = viewer?.getSelectedObject()?.getID()
    def outside = viewer?.getHierarchy()?.getAnnotationObjects()?.find {
        isPoints(it) && classOf(it) == OUTSIDE && it.getROI().getImagePlane() == viewer.getImagePlane()
    }
    viewer?.setSelectedObject(outside)
}

/** Restores the class and the selection from before. */
void clickInside() {
    PathPrefs.autoSetAnnotationClassProperty().set(classInside)
    def viewer = gui.getViewer()
    viewer?.setSelectedObject(viewer?.getHierarchy()?.getAllObjects(false)?.find { it.getID() == idInside })
}

// Prompts

/**
 * Groups annotations into one prompt per object, by the server's rules: points inside of a rectangle or
 * outline belong to the smallest one around them, negative points outside of all to the nearest points.
 */
List<Prompt> promptsIn(PathObjectHierarchy hierarchy, Collection<PathObject> wanted = []) {
    def annotations = hierarchy.getAnnotationObjects().findAll { it.hasROI() && !it.getROI().isEmpty() && !isResult(it) }
    annotations = annotations.findAll { isPrompt(it) || isPoints(it) || it in wanted }
    return annotations.groupBy { [it.getROI().getZ(), it.getROI().getT()] }.values().collectMany { promptsOn(it) }
}

/** Groups the annotations of one plane into prompts. */
List<Prompt> promptsOn(Collection<PathObject> annotations) {
    def areas = annotations.findAll { !isPoints(it) }.sort { it.getROI().getArea() }
    def points = annotations.findAll { isPoints(it) }
    def prompts = new LinkedHashMap<PathObject, Prompt>()
    areas.each { prompts[it] = promptOf(it) }
    def strays = [:]
    for (annotation in points) {
        def held = annotation.getROI().getAllPoints().groupBy { point ->
            smallestWith(areas*.getROI(), point.getX(), point.getY())
        }
        held.findAll { index, _ -> index >= 0 }.each { index, inside -> addPoints(prompts[areas[index]], annotation, inside) }
        if (held[-1] && isIgnored(annotation))
            strays[annotation] = held[-1]
        else if (held[-1])
            addPoints(prompts[annotation] = promptOf(annotation), annotation, held[-1])
    }
    def takers = prompts.values().findAll { it.area == null }
    strays.each { annotation, outside -> giveStrays(takers, annotation, outside) }
    return prompts.values() as List
}

Prompt promptOf(PathObject annotation) {
    def id = annotation.getID().toString()
    def prompt = new Prompt(id: id, parentId: id, pathClass: classOf(annotation), plane: annotation.getROI().getImagePlane())
    prompt.sources << id
    if (!isPoints(annotation)) {
        def feature = featureOf(annotation)
        prompt.area = feature.geometry
        prompt.features << feature
    }
    return prompt
}

void addPoints(Prompt prompt, PathObject annotation, List points) {
    def feature = featureOf(annotation, points)
    // An annotation that is divided between prompts must not give two of them the same id.
    if (feature.id != prompt.id)
        feature.remove('id')
    prompt.sources << annotation.getID().toString()
    prompt.features << feature
    (isIgnored(annotation) ? prompt.negatives : prompt.positives).addAll(feature.geometry.coordinates)
}

/** Assigns each negative point to the prompt with the nearest positive points. */
void giveStrays(Collection<Prompt> prompts, PathObject annotation, List points) {
    if (!prompts)
        return
    def own = prompts.collect { it.positives as List }
    points.groupBy { nearest(own, it.getX(), it.getY()) }.each { index, near -> addPoints(prompts[index], annotation, near) }
}

@CompileStatic
int smallestWith(List<ROI> rois, double x, double y) {
    return rois.findIndexOf { ROI roi ->
        x >= roi.getBoundsX() && x <= roi.getBoundsX() + roi.getBoundsWidth() &&
            y >= roi.getBoundsY() && y <= roi.getBoundsY() + roi.getBoundsHeight() &&
            (roi instanceof RectangleROI || roi.contains(x, y))
    }
}

@CompileStatic
int nearest(List<List<List<Double>>> clusters, double x, double y) {
    int best = 0
    double least = Double.POSITIVE_INFINITY
    for (int index = 0; index < clusters.size(); index++) {
        for (List<Double> point : clusters.get(index)) {
            double distance = Math.hypot(point.get(0) - x, point.get(1) - y)
            if (distance < least) {
                least = distance
                best = index
            }
        }
    }
    return best
}

/** Makes the prompt for correcting an area, which its result replaces; null without points. */
Prompt refinement(PathObjectHierarchy hierarchy, PathObject area, Collection<PathObject> points) {
    def roi = area.getROI()
    def near = points ?: hierarchy.getAnnotationObjects().findAll { isPoints(it) && samePlane(it.getROI(), roi) }
    def prompt = new Prompt(
        plane: roi.getImagePlane(), pathClass: classOf(area), refine: featureOf(area),
        parentId: area.getParent()?.getID()?.toString(), replacedId: area.getID().toString(), isReplacementOfAny: true)
    def promptId = metadataOf(area)[PROMPT_KEY]
    prompt.id = promptId != null && hierarchy.getAnnotationObjects().any { it.getID().toString() == promptId } ? promptId : null
    // A result without a prompt is named after the points, preferably positive ones.
    for (annotation in near.sort { isIgnored(it) }) {
        def used = annotation.getROI().getAllPoints().findAll { points || isNear(roi, it.getX(), it.getY()) }
        prompt.id = prompt.id ?: (used ? annotation.getID().toString() : null)
        if (used)
            addPoints(prompt, annotation, used)
    }
    return prompt.features ? prompt : null
}

/** Tells whether a point is in the bounds of an area, extended by half of their size. */
boolean isNear(ROI roi, double x, double y) {
    double marginX = roi.getBoundsWidth() / 2, marginY = roi.getBoundsHeight() / 2
    return x >= roi.getBoundsX() - marginX && x <= roi.getBoundsX() + roi.getBoundsWidth() + marginX &&
        y >= roi.getBoundsY() - marginY && y <= roi.getBoundsY() + roi.getBoundsHeight() + marginY
}

/** Converts an annotation for the server; of a points annotation, the given points. */
Map featureOf(PathObject annotation, List points = null) {
    def roi = annotation.getROI()
    def geometry = points == null ? JSON.fromJson(GEOJSON.toJson(roi, ROI), Map) : [
        type: 'MultiPoint', coordinates: points.collect { [hundredths(it.getX()), hundredths(it.getY())] },
        plane: [c: roi.getC(), z: roi.getZ(), t: roi.getT()]]
    def properties = [objectType: annotation.isDetection() ? 'detection' : 'annotation']
    if (annotation.getPathClass() != null)
        properties.classification = JSON.fromJson(GEOJSON.toJson(annotation.getPathClass(), PathClass), Object)
    return [type: 'Feature', id: annotation.getID().toString(), geometry: geometry, properties: properties]
}

/** Rounds to as many decimals as QuPath writes. */
double hundredths(double value) {
    return Math.round(value * 100) / 100d
}

boolean isPrompt(PathObject pathObject) {
    return pathObject?.isAnnotation() && pathObject.hasROI() && !isIgnored(pathObject) && !isResult(pathObject) &&
        (pathObject.getROI().isPoint() || pathObject.getROI() instanceof RectangleROI)
}

boolean isPoints(PathObject pathObject) {
    return pathObject.isAnnotation() && pathObject.hasROI() && pathObject.getROI().isPoint()
}

boolean isOutline(PathObject pathObject) {
    return pathObject?.isAnnotation() && pathObject.hasROI() && pathObject.getROI().isArea() &&
        !isIgnored(pathObject) && !isResult(pathObject)
}

boolean isPlainDetection(PathObject pathObject) {
    return pathObject.isDetection() && !pathObject.isCell() && !pathObject.isTile()
}

/** Tells whether a class is ignored by QuPath's convention: its name ends in *. */
boolean isIgnored(PathObject pathObject) {
    return classOf(pathObject)?.endsWith('*')
}

boolean samePlane(ROI a, ROI b) {
    return a.getZ() == b.getZ() && a.getT() == b.getT()
}

String classOf(PathObject pathObject) {
    return pathObject.getPathClass()?.toString()
}

// Results

boolean isResult(PathObject pathObject) {
    return metadataOf(pathObject).containsKey(PROMPT_KEY)
}

/** Gets the metadata of an object without making a map for each of a million cells that have none. */
Map<String, String> metadataOf(PathObject pathObject) {
    if (pathObject.metaClass.respondsTo(pathObject, 'hasMetadata') && !pathObject.hasMetadata())
        return [:]
    return pathObject.getMetadata()
}

/** Tells whether a result is unmodified: not locked, named, reclassified or edited by a user. */
boolean isUntouched(PathObject result) {
    def metadata = metadataOf(result)
    return metadata.containsKey(PROMPT_KEY) &&
        !result.isLocked() && !result.getName() &&
        classOf(result) == metadata.get('wsisam_class') &&
        metadata.get('wsisam_type') == (result.isAnnotation() ? 'annotation' : 'detection') &&
        isDrawn(result.getROI().getGeometry(), metadata.get('wsisam_drawn') ?: '')
}

/** Tells whether an outline has the bounds, area and length of a signature, except for rounding. */
boolean isDrawn(Geometry geometry, String signature) {
    def numbers = signature.split(' ').findAll { it.isDouble() }.collect { it.toDouble() }
    if (numbers.size() != 6)
        return false
    def bounds = numbers[0..3]
    double area = numbers[4], length = numbers[5]
    double tolerance = 0.02 + Math.scalb(1d, -23) * bounds.collect { Math.abs(it) }.max()
    def box = geometry.getEnvelopeInternal()
    def found = [box.getMinX(), box.getMinY(), box.getMaxX(), box.getMaxY()]
    return [found, bounds].transpose().every { a, b -> Math.abs(a - b) <= tolerance } &&
        [geometry.getArea() - area, geometry.getLength() - length].every { Math.abs(it) <= tolerance * Math.max(length, 1d) }
}

Map<String, PathObject> objectsById(PathObjectHierarchy hierarchy) {
    return hierarchy.getAllObjects(false).collectEntries { [it.getID().toString(), it] }
}

PathObject resultOf(JsonObject feature) {
    def metadata = feature.getAsJsonObject('properties').remove('metadata').entrySet()
        .collectEntries { [it.getKey(), it.getValue().getAsString()] }
    def result = GEOJSON.fromJson(feature, PathObject)
    try {
        result.getMetadata().putAll(metadata)
    } catch (UnsupportedOperationException e) {
        // QuPath 0.5.1 keeps metadata of detections, too, but offers no method to set them.
        metadata.each { name, value -> result.storeMetadataValue(name, value) }
    }
    return result
}

/** Adds the results that have arrived to the image, without an event. */
List<PathObject> addArrived(Request request) {
    def hierarchy = request.imageData.getHierarchy()
    def changed = []
    def byId = objectsById(hierarchy)
    def resultsByPrompt = byId.values().findAll { isResult(it) }.groupBy { metadataOf(it)[PROMPT_KEY] }
    for (JsonObject feature; (feature = request.arrived.poll()) != null;) {
        request.done++
        if (feature.get('geometry').isJsonNull()) {
            request.reasons << feature.getAsJsonObject('properties').get('reason').getAsString()
            continue
        }
        def result = resultOf(feature)
        def prompt = request.prompts[metadataOf(result)[PROMPT_KEY]]
        if (prompt == null)
            logger.warn('The server sent a result for an unknown prompt: {}', metadataOf(result)[PROMPT_KEY])
        def earlier = resultsByPrompt[prompt?.id] ?: []
        // A prompt that was deleted since gets no result.
        if (prompt != null && (byId.containsKey(prompt.id) || prompt.replacedId in byId))
            changed.addAll(replace(hierarchy, prompt, earlier, result, byId))
    }
    return changed
}

/** Replaces the earlier result of the same prompt, without an event. */
List<PathObject> replace(
    PathObjectHierarchy hierarchy, Prompt prompt, List<PathObject> earlier, PathObject result, Map<String, PathObject> byId) {
    def outdated = earlier.findAll { isUntouched(it) }
    def replaced = byId[prompt.replacedId]
    if (replaced != null && !(replaced in outdated) && (prompt.isReplacementOfAny || isUntouched(replaced)))
        outdated << replaced
    // The same result again, which a user has locked or named: the user's stays.
    if (earlier.any { it.getID() == result.getID() && !(it in outdated) })
        return []
    def parent = byId[prompt.parentId] ?: hierarchy.getRootObject()
    def selected = outdated.findAll { hierarchy.getSelectionModel().isSelected(it) }
    outdated.each { hierarchy.removeObjectWithoutUpdate(it, true) }
    hierarchy.addObjectBelowParent(parent, result, false)
    if (selected)
        select(hierarchy, selected, result)
    answered[result.getID().toString()] = prompt
    byId[result.getID().toString()] = result
    return outdated + result
}

/** Selects an object instead of others. */
void select(PathObjectHierarchy hierarchy, List<PathObject> others, PathObject pathObject) {
    def model = hierarchy.getSelectionModel()
    def main = model.getSelectedObject()
    def selected = model.getSelectedObjects().findAll { !(it in others) } + pathObject
    model.setSelectedObjects(selected, main in others ? pathObject : main)
}

/**
 * Shows the results that have arrived while more are to come.
 *
 * Each event that is not "changing" makes an undo step, but only such an event, or an insertion
 * without one, makes the hierarchy update where its objects are.
 */
void showArrived(Request request) {
    request.isShowing.set(false)
    if (!isShown(request.imageData)) {
        request.cancel()
        return
    }
    def changed = addArrived(request)
    if (!changed)
        return
    request.changed.addAll(changed)
    def hierarchy = request.imageData.getHierarchy()
    def nothing = PathObjects.createDetectionObject(ROIs.createPointsROI(0, 0, ImagePlane.getDefaultPlane()))
    hierarchy.insertPathObject(nothing, false)
    hierarchy.removeObjectWithoutUpdate(nothing, false)
    hierarchy.fireObjectsChangedEvent(this, changed, true)
}

/** Adds the remaining results, and makes one undo step of the whole request. */
void finish(Request request) {
    if (!isShown(request.imageData) && !request.changed)
        return
    if (isShown(request.imageData))
        request.changed.addAll(addArrived(request))
    // QuPath 0.5.1 makes no undo step for events without objects.
    if (request.changed)
        request.imageData.getHierarchy().fireObjectsChangedEvent(this, request.changed, false)
}

/** Tells whether a viewer shows the image; always true without a window. */
boolean isShown(ImageData imageData) {
    return gui == null || gui.getAllViewers().any { it.getImageData() === imageData }
}

// Requests

/** Sends prompts and shows their results, without blocking the window. */
Request segment(ImageData imageData, List<Prompt> prompts, boolean isLive = false, Closure whenDone = null) {
    if (!askPixelSize(imageData))
        return null
    def request = requestFor(imageData, prompts)
    def progress = isLive ? null : showProgress(request)
    Thread.startDaemon('wsi-sam') {
        def failure = failureOf(request) { exchange(request) }
        Platform.runLater {
            progress?.call()
            finish(request)
            whenDone?.call()
            report(request, failure)
        }
    }
    return request
}

Request requestFor(ImageData imageData, List<Prompt> prompts) {
    return new Request(imageData: imageData, prompts: prompts.collectEntries { [it.id, it] }, total: prompts.size())
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
        if (request.isCancelled)
            return null
        logger.warn('The response ended early', e)
        return 'The server ended the connection in the middle of its response. See its output in the terminal, and try again.'
    } catch (RuntimeException e) {
        logger.error(e.getMessage(), e)
        return "The script failed: $e. See the log for details (View > Show log)."
    }
}

void report(Request request, String failure) {
    if (request.imageData != null && !isShown(request.imageData))
        return
    if (failure)
        Dialogs.showErrorNotification(TITLE, wrapped(failure))
    else if (request.reasons && !request.isCancelled)
        Dialogs.showWarningNotification(TITLE, wrapped("No outline for ${request.reasons.size()} of ${request.prompts.size()}: ${request.reasons[0]}."))
}

/** Requests the outlines of all prompts; they arrive in the request. */
void exchange(Request request) {
    for (prompts in request.prompts.values().groupBy { [it.plane.getZ(), it.plane.getT()] }.values())
        prompts.collate(PROMPTS_AT_ONCE).each { exchange(request, it) }
}

void exchange(Request request, List<Prompt> prompts, List<Map> regions = null) {
    def response = send(request, 'POST', '/v1/segment', documentFor(request.imageData, prompts, regions))
    if (response.statusCode() == 200) {
        readRecords(request, response.body())
        return
    }
    def problem = problemOf(response)
    if (nameOf(problem) == 'not-found')
        throw new ServerException(strangerAt(response))
    if (regions != null || nameOf(problem) != 'pixels-needed')
        throw new ServerException(messageOf(problem))
    if (prompts.size() > PROMPTS_WITH_PIXELS) {
        prompts.collate(PROMPTS_WITH_PIXELS).each { exchange(request, it) }
        return
    }
    logger.info('The server cannot read this slide, so its pixels are sent')
    def needed = problem.getAsJsonArray('regions')
    exchange(request, prompts, needed.collect { readRegion(request.imageData.getServer(), it, prompts[0].plane) })
}

Map documentFor(ImageData imageData, List<Prompt> prompts, List<Map> regions) {
    def refined = prompts.size() == 1 && prompts[0].refine != null
    return [
        slide: slideOf(imageData.getServer(), prompts[0].plane),
        prompts: [type: 'FeatureCollection', features: refined ? correctionsOf(prompts[0]) : prompts*.features.flatten()],
        refine: refined ? prompts[0].refine : null,
        regions: regions,
        on_unreadable: 'regions',
        options: optionsFor(prompts),
    ]
}

/** Collects the points that correct an area. The result is named after the first positive points, else the first. */
List<Map> correctionsOf(Prompt prompt) {
    def features = prompt.features.collect { it.findAll { it.key != 'id' } }
    def points = features.findAll { it.geometry.type == 'MultiPoint' }
    def first = points.find { !isOutside(it.properties.classification) } ?: points[0]
    if (first != null)
        first.id = prompt.id
    return features
}

boolean isOutside(Map classification) {
    return classification != null && (classification.names ?: [classification.name])[-1].endsWith('*')
}

/** Describes the slide as QuPath shows it. If no file shows the same, it gets a name that no server can open. */
Map slideOf(ImageServer server, ImagePlane plane) {
    def calibration = server.getPixelCalibration()
    def isPlain = isPlainFile(server) && plane.getZ() == 0 && plane.getT() == 0
    return [
        uri: isPlain ? server.getURIs()[0].toString() : 'qupath:pixels',
        width: server.getWidth(), height: server.getHeight(),
        mpp_x: calibration.getPixelWidthMicrons(), mpp_y: calibration.getPixelHeightMicrons(),
        downsamples: server.getPreferredDownsamples().toList().findAll { it >= 1 },
    ]
}

/** Tells whether QuPath shows the slide as in its file: not rotated, cropped or otherwise changed. */
boolean isPlainFile(ImageServer server) {
    if (server.getURIs().size() != 1 || server.getBuilder() == null)
        return false
    def builder = JSON.fromJson(GEOJSON.toJson(server.getBuilder(), ServerBuilder), JsonObject)
    while (builder.get('builderType')?.getAsString() == 'pyramidize')
        builder = builder.getAsJsonObject('builder')
    return builder.get('builderType')?.getAsString() == 'uri'
}

Map optionsFor(List<Prompt> prompts) {
    def refined = prompts.size() == 1 ? prompts[0] : null
    def isDetection = refined?.isReplacementOfAny ? refined.refine.properties.objectType == 'detection' : objectTypeProperty.get() == 'detection'
    return [
        object_size_um: OBJECT_SIZES_UM[objectSizeProperty.get()],
        object_type: isDetection ? 'detection' : 'annotation',
        'class': (refined?.isReplacementOfAny ? refined.pathClass : classProperty.get().trim()) ?: null,
    ]
}

/** Reads a region at the resolution that the server asks for, or a finer one. */
Map readRegion(ImageServer server, JsonObject needed, ImagePlane plane) {
    def (x, y, width, height) = ['x', 'y', 'width', 'height'].collect { needed.get(it).getAsInt() }
    double downsample = Math.min(width / needed.get('width_px').getAsInt(), height / needed.get('height_px').getAsInt())
    def image = server.readRegion(RegionRequest.createInstance(
        server.getPath(), Math.max(1d, downsample), x, y, width, height, plane.getZ(), plane.getT()))
    def bytes = new ByteArrayOutputStream()
    ImageIO.write(onWhite(image), 'PNG', bytes)
    return [x: x, y: y, width: width, height: height, image: bytes.toByteArray().encodeBase64().toString()]
}

BufferedImage onWhite(BufferedImage image) {
    def rgb = new BufferedImage(image.getWidth(), image.getHeight(), BufferedImage.TYPE_INT_RGB)
    def graphics = rgb.createGraphics()
    graphics.drawImage(image, 0, 0, Color.WHITE, null)
    graphics.dispose()
    return rgb
}

/** Reads RFC 8142: one feature per line, each after a record separator. */
void readRecords(Request request, InputStream body) {
    body.newReader('UTF-8').withCloseable { reader ->
        for (String line; (line = reader.readLine()) != null;) {
            def text = line.replace(RECORD_SEPARATOR, '').trim()
            if (!text)
                continue
            def record = JSON.fromJson(text, JsonObject)
            if (record.has('status'))
                throw new ServerException(messageOf(record))
            request.arrived.add(record)
            if (gui != null && request.prompts.size() > 1 && request.isShowing.compareAndSet(false, true))
                Platform.runLater { showArrived(request) }
        }
    }
}

// The server

/** Sends a request, and repeats it while the server is busy or loads its model. */
HttpResponse<InputStream> send(Request request, String method, String path, Object document) {
    def (url, token) = findServer()
    def builder = HttpRequest.newBuilder(uriOf(url + path))
        .header('Accept', path == '/v1/segment' || path.endsWith('/results') ? 'application/geo+json-seq' : 'application/json')
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
        if (cause instanceof ConnectException || cause instanceof java.net.http.HttpConnectTimeoutException)
            throw new ServerException("No server responds at $url. $START")
        throw new ServerException("The server at $url ended the connection (${cause.getMessage() ?: cause}). See its output in the terminal, and try again.")
    }
}

/** Finds URL and token: those of the settings, else those of a server on this computer. */
List<String> findServer() {
    def url = serverProperty.get().trim().replaceAll('/+$', '')
    def local = localServers()
    def chosen = url ? local.find { it.url == url } : (local.size() == 1 ? local[0] : local.find { answers(it.url) } ?: local[0])
    if (!url && !chosen)
        throw new ServerException("No server is running on this computer. $START To use a server on another computer, enter its address in $SETTINGS.")
    return [url ?: chosen.url, tokenProperty.get().trim() ?: chosen?.token]
}

/** Lists the servers on this computer by the files they left, the newest first; a killed one left its file too. */
List<Map<String, String>> localServers() {
    def files = new File(System.getProperty('user.home'), '.wsisam-qupath/servers').listFiles({ it.isFile() && it.name.endsWith('.json') } as FileFilter)
    return (files ?: [] as File[]).toList().sort { -it.lastModified() }.findResults { file ->
        try {
            def about = readJson(file.getText('UTF-8'))
            return [url: about.get('url').getAsString(), token: about.get('token').getAsString()]
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
    def certificate = certificateProperty.get().trim()
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
    def id = problem.get('instance')?.getAsString()?.tokenize(':')?.last()
    def hint = nameOf(problem) == 'unauthorized' ? " For a server on this computer the script finds the token by itself; otherwise enter it in $SETTINGS." : ''
    return problem.get('detail').getAsString() + hint + (id ? "\n(request $id)" : '')
}

// Live mode

/** Sends each rectangle and each points annotation that is drawn or changed from now on. */
void startLiveMode(CheckMenuItem item) {
    livePause = new PauseTransition(new javafx.util.Duration(PAUSE_BEFORE_SENDING.toMillis()))
    // Not within the animation, where no dialog may be shown.
    livePause.setOnFinished { Platform.runLater { segmentChanged(item) } }
    gui.imageDataProperty().addListener(liveImageListener)
    watch(gui.getImageData())
    inform('Live mode is on: draw a rectangle around an object, or click points inside of it. Points of a class that ends in * mark what is outside.')
}

void stopLiveMode() {
    gui.imageDataProperty().removeListener(liveImageListener)
    livePause?.stop()
    watch(null)
}

@Field final ChangeListener liveImageListener = { o, was, now -> watch(now) } as ChangeListener

@Field final PathObjectHierarchyListener liveListener = { event ->
    if (!event.isChanging())
        Platform.runLater { livePause.playFromStart() }
} as PathObjectHierarchyListener

/** Watches another image. Annotations that it has already are not sent. */
void watch(ImageData imageData) {
    liveImage?.getHierarchy()?.removeListener(liveListener)
    liveRequests.values().each { it.cancel() }
    liveRequests.clear()
    liveSeen.clear()
    liveImage = imageData
    if (imageData == null)
        return
    promptsIn(imageData.getHierarchy()).each { liveSeen[it.id] = it.signature }
    liveRoot = imageData.getHierarchy().getRootObject()
    imageData.getHierarchy().addListener(liveListener)
}

void segmentChanged(CheckMenuItem item) {
    if (liveImage == null)
        return
    def hierarchy = liveImage.getHierarchy()
    def prompts = promptsIn(hierarchy)
    def ids = prompts*.id as Set
    liveRequests.keySet().findAll { !(it in ids) }.each { liveRequests.remove(it).cancel() }
    def changed = prompts.findAll { liveSeen[it.id] != it.signature }
    liveSeen.clear()
    prompts.each { liveSeen[it.id] = it.signature }
    // Undo and redo replace the root together with its results: nothing is to be sent.
    if (liveRoot !== hierarchy.getRootObject()) {
        liveRoot = hierarchy.getRootObject()
        return
    }
    changed.each { liveRequests.remove(it.id)?.cancel() }
    if (changed.size() > LIVE_PROMPTS_AT_ONCE) {
        segmentLive(item, changed)
        return
    }
    def results = hierarchy.getAllObjects(false).findAll { isResult(it) }.groupBy { metadataOf(it)[PROMPT_KEY] }
    changed.each { segmentLive(item, [refined(it, results[it.id])]) }
}

void segmentLive(CheckMenuItem item, List<Prompt> prompts) {
    Request request = null
    request = segment(liveImage, prompts, true) {
        prompts.each { liveRequests.remove(it.id, request) }
    }
    if (request == null)
        item.setSelected(false)
    else
        prompts.each { liveRequests[it.id] = request }
}

/** Adds the unmodified result of fewer clicks to a prompt, if there is one, to be refined. */
Prompt refined(Prompt prompt, List<PathObject> results) {
    def earlier = results?.find { result ->
        def answeredPrompt = answered[result.getID().toString()]
        answeredPrompt != null && prompt.extendsClicksOf(answeredPrompt) && isUntouched(result)
    }
    if (earlier != null)
        prompt.refine = featureOf(earlier)
    return prompt
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
    def request = new Request(doing: 'images', prompts: [:])
    def progress = showProgress(request)
    Thread.startDaemon('wsi-sam') {
        def told = null
        def failure = failureOf(request) { told = runJob(request, project) }
        Platform.runLater {
            progress.call()
            report(request, failure)
            if (told)
                inform(told)
        }
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

/** Follows a job to its end. Returns a summary for the user. */
String runJob(Request request, project) {
    def shown = shownImages(project).keySet()
    def job = ask(request, '/v1/jobs', 'POST', [
        project: project.getPath().toUri().toString(), project_is_open: true, open_images: shown as List, options: optionsFor([])])
    def path = "/v1/jobs/${job.get('id').getAsString()}"
    while (job.get('state').getAsString() in ['waiting', 'running']) {
        if (request.isCancelled) {
            ask(new Request(), path, 'DELETE')
            return null
        }
        Thread.sleep(500)
        def now = shownImages(project).keySet()
        if (now != shown)
            ask(new Request(), "$path/open-images", 'PUT', [images: now as List])
        shown = now
        job = ask(new Request(), path)
        request.done = job.get('images_ended').getAsInt()
        request.total = job.get('images').isJsonNull() ? 0 : job.get('images').getAsInt()
    }
    if (job.get('state').getAsString() == 'failed')
        throw new ServerException(job.get('reason').getAsString())
    addJobResults(project, path)
    ask(new Request(), path, 'DELETE')
    return summaryOf(job)
}

String summaryOf(JsonObject job) {
    def failures = job.getAsJsonArray('failures').collect { "${it.get('name').getAsString()}: ${it.get('reason').getAsString()}" }
    if (job.get('prompts').getAsInt() == 0 && job.getAsJsonArray('failures').isEmpty())
        return "There was nothing to do in ${job.get('images').getAsInt()} images."
    def lines = ["${job.get('prompts_answered').getAsInt()} of ${job.get('prompts').getAsInt()} prompts answered in ${job.get('images').getAsInt()} images."]
    return (lines + failures + job.getAsJsonArray('notes').collect { it.getAsString() }).join('\n')
}

/** Adds the results of the images that the server did not write because QuPath shows them. */
void addJobResults(project, String path) {
    def records = send(new Request(), 'GET', "$path/results", null).body().withCloseable { it.readLines('UTF-8') }
        .collect { readJson(it.replace(RECORD_SEPARATOR, '')) }.findAll()
    records.groupBy { it.get('image').getAsString() }.each { id, features ->
        def shown = onApplicationThread {
            def imageData = shownImages(project)[id]
            if (imageData != null)
                addKept(imageData.getHierarchy(), features)
            imageData
        }
        if (shown == null)
            saveKept(project.getImageList().find { it.getID() == id }, features)
    }
}

/** Adds results to an image that was closed since. */
void saveKept(entry, List<JsonObject> features) {
    def imageData = entry.readImageData()
    addKept(imageData.getHierarchy(), features)
    entry.saveImageData(imageData)
    imageData.getServer().close()
}

void addKept(PathObjectHierarchy hierarchy, List<JsonObject> features) {
    def byId = objectsById(hierarchy)
    def changed = []
    for (feature in features) {
        def outdated = feature.getAsJsonArray('replaces').collect { byId[it.getAsString()] }.findAll { it != null && isUntouched(it) }
        def result = resultOf(feature)
        if (byId.containsKey(result.getID().toString()) && !(byId[result.getID().toString()] in outdated))
            continue
        def parent = feature.get('parent').isJsonNull() ? null : byId[feature.get('parent').getAsString()]
        outdated.each { hierarchy.removeObjectWithoutUpdate(it, true) }
        hierarchy.addObjectBelowParent(parent ?: hierarchy.getRootObject(), result, false)
        changed.addAll(outdated + result)
    }
    if (changed)
        hierarchy.fireObjectsChangedEvent(this, changed, false)
}

def onApplicationThread(Closure work) {
    def task = new FutureTask(work as Callable)
    Platform.runLater(task)
    return task.get()
}

// Dialogs

void inform(String message) {
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
        label.setText("${request.done} of ${request.total} ${request.doing}")
        bar.setProgress(request.done ? request.done / request.total : ProgressBar.INDETERMINATE_PROGRESS)
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

void checkPixelSize(ImageData imageData) {
    if (!imageData.getServer().isRGB())
        throw new ServerException('This image is not RGB: only brightfield images can be segmented.')
    if (!imageData.getServer().getPixelCalibration().hasPixelSizeMicrons())
        throw new ServerException('This image has no pixel size: double-click Pixel width in QuPath\'s Image tab and enter it.')
}

/** Asks once for the pixel size of an image that has none, and sets it in the image. */
boolean askPixelSize(ImageData imageData) {
    def server = imageData.getServer()
    if (!server.isRGB()) {
        inform('This image is not RGB: only brightfield images can be segmented.')
        return false
    }
    if (server.getPixelCalibration().hasPixelSizeMicrons())
        return true
    def size = Dialogs.showInputDialog(TITLE, 'This image has no pixel size. How wide is one pixel, in µm?\\n(0.25 for a scan at 40x, 0.5 at 20x.) The image keeps this pixel size.', 0.5d)
    if (size == null || !(size > 0.01 && size < 100)) {
        inform('Without a pixel size nothing can be segmented. You can also enter it in the Image tab: Pixel width.')
        return false
    }
    imageData.updateServerMetadata(new ImageServerMetadata.Builder(server.getMetadata()).pixelSizeMicrons(size, size).build())
    return true
}

void showSettings() {
    def params = new ParameterList()
        .addTitleParameter('Results')
        .addChoiceParameter('type', 'Type', objectTypeProperty.get(), ['detection', 'annotation'], 'Detections are lightweight; annotations can be edited by hand')
        .addStringParameter('class', 'Class', classProperty.get(), 'Class of all results. Empty: the class of each prompt')
        .addChoiceParameter('size', 'Points mark a', objectSizeProperty.get(), OBJECT_SIZES_UM.keySet() as List, 'Size of objects that are marked by points only. Rectangles show the size themselves')
        .addTitleParameter('Server on another computer')
        .addStringParameter('server', 'Address', serverProperty.get(), 'Such as https://gpu.example.org:8473. Empty: the server on this computer, which is found automatically')
        .addStringParameter('token', 'Token', tokenProperty.get(), 'Token that the server printed when it started. Stored in the preferences of QuPath')
        .addStringParameter('certificate', 'Certificate', certificateProperty.get(), 'PEM file to trust if the server uses a self-made certificate')
    if (!GuiTools.showParameterDialog(TITLE, params))
        return
    objectTypeProperty.set(params.getChoiceParameterValue('type'))
    classProperty.set(params.getStringParameterValue('class').trim())
    objectSizeProperty.set(params.getChoiceParameterValue('size'))
    serverProperty.set(params.getStringParameterValue('server').trim())
    tokenProperty.set(params.getStringParameterValue('token').trim())
    certificateProperty.set(params.getStringParameterValue('certificate').trim())
}

void showServerStatus() {
    Thread.startDaemon('wsi-sam') {
        def text, isFailure = false
        try {
            text = statusText()
        } catch (IOException e) {
            text = e.getMessage()
            isFailure = true
        }
        Platform.runLater { isFailure ? Dialogs.showErrorNotification(TITLE, wrapped(text)) : Dialogs.showPlainMessage(TITLE, text) }
    }
}

String statusText() {
    def info = ask(new Request(), '/v1/info')
    def model = info.get('model')
    def lines = ["Server: ${findServer()[0]}, version ${info.get('version').getAsString()}", "State: ${info.get('state').getAsString()}"]
    if (model?.isJsonObject()) {
        def adapter = model.get('adapter')
        lines << "Model: ${model.get('base').getAsString()}" + (adapter?.isJsonNull() ? ', no adapter' : ", adapter ${adapter.getAsString()}")
        lines << "Device: ${info.get('device').getAsString()}"
    }
    if (info.get('failure')?.isJsonPrimitive())
        lines << info.get('failure').getAsString()
    lines << (info.get('reads_slides').getAsBoolean() ? 'It opens slides itself.' : 'It receives the pixels that it needs.')
    return lines.join('\n')
}

/** Sends a request and returns the server's JSON. */
JsonObject ask(Request request, String path, String method = 'GET', Object document = null) {
    def response = send(request, method, path, document)
    if (response.statusCode() >= 300)
        throw new ServerException(messageOf(problemOf(response)))
    def answer = response.body().withCloseable { it.getText('UTF-8') }
    return answer ? JSON.fromJson(answer, JsonObject) : null
}
