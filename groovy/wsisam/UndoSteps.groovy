package wsisam

import javafx.application.Platform
import javafx.event.EventHandler
import javafx.scene.input.*
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.viewer.QuPathViewer
import qupath.lib.objects.hierarchy.PathObjectHierarchy
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent

/**
 * Tells QuPath's undo manager what happens on an image: of what is drawn and of its outline at once, as one step. For
 * each step the manager collects all garbage in the window's thread, so it hears when the outline is on the screen.
 */
class UndoSteps {
    private final manager = QuPathGUI.instance?.undoRedoManager
    private final QuPathViewer viewer
    private final PathObjectHierarchy hierarchy
    private final Closure beforeUndo
    private PathObjectHierarchyEvent untold
    private boolean isOn = true
    private final EventHandler onInput = { event -> if (mayUndo(event)) beforeUndo() } as EventHandler

    /** Stands between the image and the undo manager from now on; `beforeUndo` is called when undo may follow. */
    UndoSteps(QuPathViewer viewer, Closure beforeUndo) {
        this.viewer = viewer
        this.beforeUndo = beforeUndo
        hierarchy = viewer.hierarchy
        // When an image is opened, the manager begins to listen after this.
        Platform.runLater { if (isOn && manager) hierarchy.removeListener(manager) }
        viewer.view.scene?.addEventFilter(InputEvent.ANY, onInput)
    }

    /** Lets the undo manager hear for itself again. */
    void end() {
        isOn = false
        viewer.view.scene?.removeEventFilter(InputEvent.ANY, onInput)
        tell()
        if (manager == null || !viewer.hierarchy.is(hierarchy))    // of a closed image it hears nothing more
            return
        hierarchy.removeListener(manager)
        hierarchy.addListener(manager)
    }

    /** Keeps what happened until the next is told: both are one step. */
    void keep(PathObjectHierarchyEvent event) {
        untold = event
    }

    /** Whether a shortcut or a menu may ask for undo now, which must find what happened until here. */
    private boolean mayUndo(InputEvent event) {
        if (event.eventType == KeyEvent.KEY_PRESSED)
            return event.isShortcutDown()
        def view = viewer.view
        return event.eventType == MouseEvent.MOUSE_PRESSED &&
            !view.localToScene(view.layoutBounds).contains(event.sceneX, event.sceneY)
    }

    /** Tells what was kept, as it is now. */
    void tell() {
        def event = untold
        untold = null
        if (event != null)
            manager?.hierarchyChanged(event)
    }
}
