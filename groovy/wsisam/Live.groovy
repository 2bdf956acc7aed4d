package wsisam

import java.awt.Rectangle
import javafx.animation.PauseTransition
import javafx.application.Platform
import javafx.beans.value.ChangeListener
import javafx.event.EventHandler
import javafx.scene.control.CheckMenuItem
import javafx.scene.input.*
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.prefs.PathPrefs
import qupath.lib.gui.viewer.QuPathViewer
import qupath.lib.gui.viewer.tools.PathTools
import qupath.lib.images.ImageData
import qupath.lib.objects.PathObject
import qupath.lib.objects.classes.PathClass
import qupath.lib.objects.hierarchy.events.*
import qupath.lib.roi.RoiTools

import static wsisam.Drawing.*
import static wsisam.Json.logger

/** Live mode: sends what is drawn or changed as it happens, and shows the answers and what a click would give. */
class Live {
    private static final int PAUSE_MS = 20, PAINTED_MS = 50, REST_MS = 300, RETRY_MS = 3000, CANDIDATES = 3
    private static final String OUTSIDE = 'Ignore*'

    Settings settings
    Exchange exchange
    Answers answers

    private final QuPathGUI gui = QuPathGUI.instance
    private CheckMenuItem item          // null while live mode is off
    private ImageData imageData         // that is watched
    private QuPathViewer viewer
    private LiveView view
    private PathObject root
    private PauseTransition pause, rest
    private Changes changes
    private UndoSteps steps
    private Request asked, ahead        // the last change, and what a click would give
    private boolean hasFailed = false, isOwnEvent = false
    private boolean isPressed = false, isOfMouse = false    // a button, and what QuPath does because of it now
    /** Tells QuPath of the outline that is on the screen already; null if it knows. */
    private Closure untold
    /** When the mouse was last pressed or released, until the outline is on the screen; ns. */
    private long moused
    /** The last answer with what else it may be, by size; the outline that further clicks correct. */
    private List<Answer> candidates = []
    private String candidateId, refinedId
    private UUID selectedId    // of the object that was selected before an undo or redo
    private List<Double> cursor
    private PathClass classInside
    private UUID idInside

    private final ChangeListener onImage = { o, was, now -> watch(now) } as ChangeListener
    private final PathObjectHierarchyListener onChange =
        { event -> noteEvent(event) } as PathObjectHierarchyListener
    private final EventHandler<KeyEvent> onKey = { event -> takeKey(event) } as EventHandler
    private final EventHandler<MouseEvent> onMouse = { event -> takeMouse(event) } as EventHandler

    // On and off

    boolean isOn() {
        return item != null
    }

    /** Sends what is drawn or changed from now on. */
    void set(CheckMenuItem item, boolean isOn) {
        this.item = isOn ? item : null
        settings.sizeHint = null
        gui.imageDataProperty().removeListener(onImage)
        if (isOn) {
            pause = pauseOf(PAUSE_MS) { followChanges() }
            rest = pauseOf(REST_MS) { lookAhead() }
            gui.imageDataProperty().addListener(onImage)
        }
        watch(isOn ? gui.imageData : null)
    }

    private static PauseTransition pauseOf(int milliseconds, Closure then) {
        def pause = new PauseTransition(javafx.util.Duration.millis(milliseconds))
        pause.setOnFinished { Platform.runLater { then() } }    // within the animation no dialog may be shown
        return pause
    }

    /** Watches another image. Annotations that it has already are not sent. */
    private void watch(ImageData imageData) {
        tellQuPath()
        steps?.end()
        steps = null
        this.imageData?.hierarchy?.removeListener(onChange)
        cancelRequests()
        [pause, rest].each { it?.stop() }
        forgetObject()
        view?.remove()
        view = null
        this.imageData = imageData
        viewer = viewerOf(imageData)
        if (viewer == null)
            return
        changes = new Changes(imageData)
        root = imageData.hierarchy.rootObject
        steps = new UndoSteps(viewer, {
            selectedId = viewer.selectedObject?.ID
            tellQuPath()
            steps?.tell()
        })
        imageData.hierarchy.addListener(onChange)
        view = new LiveView(settings, viewer, [(KeyEvent.KEY_PRESSED): onKey, (MouseEvent.ANY): onMouse])
        showState('…')
        // So that a server runs and its model is loaded before the first click.
        def first = new Request()
        first.inBackground({ exchange.server.ask(first, '/v1/info') }) { failure ->
            showState(failure ? Say.wrapped(failure) :
                'ready: draw around an object, or click in it with the points tool')
        }
    }

    private void cancelRequests() {
        [asked, ahead].each { it?.cancel() }
        asked = ahead = null
    }

    // What the user does

    private void takeKey(KeyEvent event) {
        tellQuPath()
        def step = [(KeyCode.OPEN_BRACKET): -1, (KeyCode.CLOSE_BRACKET): 1][event.code]
        if (event.code == KeyCode.ENTER)
            acceptObject()
        else if (step)
            chooseCandidate(step)
        else
            return
        event.consume()
    }

    private void takeMouse(MouseEvent event) {
        def point = viewer.componentPointToImagePoint(event.x, event.y, null, false)
        def isMove = event.eventType == MouseEvent.MOUSE_MOVED
        if (event.eventType in [MouseEvent.MOUSE_PRESSED, MouseEvent.MOUSE_RELEASED]) {
            tellQuPath()
            moused = System.nanoTime()
            isOfMouse = true
            Platform.runLater { isOfMouse = false }
        }
        isPressed = event.isPrimaryButtonDown()
        cursor = [hundredths(point.x), hundredths(point.y)]
        if (!isMove || !view.outlines.preview?.contains(*cursor))
            view.showPreview(null)
        if (isMove && settings['Preview'] == 'yes')
            rest.playFromStart()
        else
            rest.stop()
    }

    private void noteEvent(PathObjectHierarchyEvent event) {
        if (event.isChanging())
            return
        steps.keep(event)
        if (isOwnEvent)
            return
        def now = imageData.hierarchy.rootObject
        if (!now.is(root)) {    // undo or redo: what was asked for is another image's, so to speak
            steps.tell()
            root = now
            view.outlines.follow(imageData.hierarchy)
            asked?.cancel()
            asked = null
            followUndo()
        }
        if (isOfMouse && Exchange.pixelTrouble(imageData) == null)    // else a dialog is to be shown
            followChanges()
        else
            Platform.runLater { pause.playFromStart() }
    }

    /** Goes on with the object of before an undo or redo: all objects of the image are others now, and none is selected. */
    private void followUndo() {
        def byId = objectsById(imageData.hierarchy)
        candidateId = candidates.find { byId[it.id] }?.id
        if (candidateId == null)
            candidates = []
        def selected = byId[selectedId?.toString()]
        if (selected != null && isPoints(selected))
            Platform.runLater { viewer?.setSelectedObject(selected) }    // after the undo manager, which selects none
    }

    /** Begins the next object. */
    private void acceptObject() {
        viewer.setSelectedObject(null)
        forgetObject()
        showState(asked == null ? null : '…')    // its outline may still be on the way
    }

    private void forgetObject() {
        candidates = []
        candidateId = refinedId = null
    }

    /** Waits for clicks that correct an outline. */
    void startRefining(PathObject area) {
        refinedId = area.ID.toString()
        viewer?.setSelectedObject(null)
        gui.toolManager.setSelectedTool(PathTools.POINTS)
        showState('click where the outline is too small, or with X where it is too large')
    }

    /** Makes the points tool mark points outside of the object, added to those on this plane; or inside again. */
    void clickOutside(boolean isNow) {
        def shown = gui.viewer
        def annotations = shown?.hierarchy?.annotationObjects ?: []
        if (isNow) {
            classInside = PathPrefs.autoSetAnnotationClassProperty().get()
            idInside = shown?.selectedObject?.ID
            PathPrefs.autoSetAnnotationClassProperty().set(PathClass.fromString(OUTSIDE))
            gui.toolManager.setSelectedTool(PathTools.POINTS)
            def isHere = { isPoints(it) && it.ROI.imagePlane == shown.imagePlane }
            shown?.setSelectedObject(annotations.find { isHere(it) && it.pathClass?.toString() == OUTSIDE })
        } else {
            PathPrefs.autoSetAnnotationClassProperty().set(classInside)
            shown?.setSelectedObject(annotations.find { it.ID == idInside })
        }
        showState()
    }

    private static boolean isOutside() {
        return isIgnored(PathPrefs.autoSetAnnotationClassProperty().get())
    }

    // Answers

    /** Sends what was drawn or changed since. */
    private void followChanges() {
        if (imageData == null || (!changes.note() && asked != null))
            return    // the mouse is released, and its press was told
        view.outlines.results.removeIf { it.parent == null }
        if (!changes.ids) {
            steps.tell()
            return
        }
        cancelRequests()
        if (!Exchange.askPixelSize(imageData)) {
            item.setSelected(false)
            return
        }
        def (place, near, reach) = [changes.area, new Rectangle(changes.area), Exchange.reachPx(imageData)]
        near.grow(reach, reach)
        def area = [x: Math.max(0, place.x), y: Math.max(0, place.y), width: place.width, height: place.height]
        def select = [ids: changes.ids as List] + (refinedId ? [:] : [area: area, follow: true])
        ask(new Request(imageData: imageData, select: select, refinedId: refinedId), '…', near)
    }

    private void ask(Request request, String state, Rectangle near = null) {
        long told = System.nanoTime()
        long mouse = moused
        asked = request
        request.options = settings.options() + [candidates: CANDIDATES] + request.options
        exchange.gather(request, near)
        showState(state)
        long started = System.nanoTime()
        request.inBackground({ exchange.segment(request) }) { failure ->
            long answered = System.nanoTime()
            whenReleased {
                if (!request.is(asked))
                    return
                if (!failure && mouse)
                    view.outlines.onPaint = { logTimes(mouse, told, started, answered) }
                settle(request, failure)
            }
        }
    }

    /** QuPath's event of the released mouse is to come before the answer's, to be undone with it. */
    private void whenReleased(Closure then) {
        if (isPressed)
            pauseOf(PAUSE_MS) { whenReleased(then) }.play()
        else
            then()
    }

    /** Logs how long a click took, once its outline is painted; the screen shows it with its next picture. */
    private void logTimes(long mouse, long told, long started, long answered) {
        view.outlines.onPaint = null
        moused = 0
        def times = [System.nanoTime() - mouse, told - mouse, started - told, answered - started]
        logger.debug('Outline drawn {} ms after the mouse: QuPath told of the change after {} ms, ' +
            'it took {} ms to put down, and {} ms to be answered', *times.collect { it.intdiv(1_000_000) })
    }

    /** Shows the answer to the last change; what failed is tried again as soon as the server is back. */
    private void settle(Request request, String failure) {
        asked = null
        tellQuPath()
        def found = answers.take(request)
        if (found)
            rememberCandidates(found, request)
        viewer.repaint()
        untold = {
            isOwnEvent = true
            answers.finish(request)
            isOwnEvent = false
            steps?.tell()
        }
        pauseOf(PAINTED_MS) { tellQuPath() }.play()    // for its undo step QuPath collects all garbage first
        if (failure) {
            showState(Say.wrapped(failure))
            if (!hasFailed)
                Say.report(request, failure)
            hasFailed = true
            pauseOf(RETRY_MS) { asked ?: pause?.playFromStart() }.play()
            return
        }
        hasFailed = false
        changes.clear()
        showState(request.reasons.find())
    }

    private void tellQuPath() {
        def tell = untold
        untold = null
        tell?.call()
    }

    /** Keeps what the last click may mean beside its answer, and shows the answer so that nobody overlooks it. */
    private void rememberCandidates(List<Answer> found, Request request) {
        def results = request.changed.findAll { it.parent != null }
        if (results && request.options.object_size_um != settings.options().object_size_um)
            settings.sizeHint = sizeOf(results[-1])    // of what came, which may be no larger than before
        view.outlines.add(results)
        def last = results ? results[-1].ID.toString() : null
        def answer = found.find { it.others } ?: found.find { it.id == last }
        // A rectangle says itself how large its object is. Not `ROI.area`, which Groovy takes for `isArea()`.
        def isSized = results && !isPoints(results[-1].parent)
        candidates = isSized ? [] : ([answer] + (answer?.others ?: [])).findAll { it?.result != null }
            .sort { it.result.getROI().getArea() }
        candidateId = isSized ? null : answer?.id
        if (refinedId && last)
            refinedId = last
        view.showPreview(null)
    }

    /** Goes to the next smaller or larger thing that the last click may mean; the next object has that size, too. */
    private void chooseCandidate(int step) {
        int index = candidates.findIndexOf { it.id == candidateId } + step
        def hierarchy = imageData.hierarchy
        def shown = objectsById(hierarchy)[candidateId]
        if (shown == null || asked != null)    // an answer on the way belongs to what is shown
            return
        if (index < 0 || index >= candidates.size()) {    // the server had no other candidate
            def options = [object_size_um: sizeOf(shown) * (step < 0 ? 0.4d : 2.5d)]
            ask(new Request(imageData: imageData, select: [ids: [candidateId]], options: options), '…')
            return
        }
        def result = candidates[index].result
        def parent = shown.parent
        hierarchy.removeObjectWithoutUpdate(shown, true)
        hierarchy.addObjectBelowParent(parent, result, false)
        view.outlines.add([result])
        candidateId = result.ID.toString()
        settings.sizeHint = sizeOf(result)
        hierarchy.fireObjectsChangedEvent(this, [shown, result], false)
        showState("${index + 1} of ${candidates.size()}")
    }

    private double sizeOf(PathObject result) {
        def roi = result.ROI
        return Math.max(roi.boundsWidth, roi.boundsHeight) * pixelSizeOf(imageData)
    }

    // What a click would give

    /** Asks for what a click under the resting cursor would give; the server does so when it has nothing else to do. */
    private void lookAhead() {
        def isPointing = gui.toolManager.selectedTool == PathTools.POINTS && !isOutside()
        if (imageData == null || asked != null || !isPointing)
            return
        def selected = viewer.selectedObject
        def isContinued = selected != null && isPoints(selected)
        def points = isContinued ? selected.ROI.allPoints.collect { [it.x, it.y] } : []
        def feature = [
            type: 'Feature', id: 'preview', properties: [objectType: 'annotation'],
            geometry: [type: 'MultiPoint', coordinates: points + [cursor]]]
        ahead?.cancel()
        def request = ahead = new Request(imageData: imageData, options: settings.options())
        request.inBackground({ exchange.prepare(request, viewer.imagePlane, feature) }) { failure ->
            def answer = request.arrived.poll()
            if (request.is(ahead) && !failure && asked == null && answer?.result != null)
                view.showPreview(RoiTools.getShape(answer.result.ROI))
        }
    }

    /** Says on the viewer what live mode does. */
    void showState(String state = null) {
        if (view != null)    // without a window JavaFX has no thread
            Platform.runLater { view?.showState(state ?: 'ready', isOutside(), candidateId != null) }
    }
}
