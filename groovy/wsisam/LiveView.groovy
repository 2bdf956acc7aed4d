package wsisam

import java.awt.Shape
import javafx.geometry.Insets
import javafx.geometry.Pos
import javafx.scene.control.Label
import javafx.scene.input.*
import javafx.scene.layout.StackPane
import qupath.lib.gui.viewer.QuPathViewer

/** What live mode shows on a viewer: outlines, and a line that says what it does and by which keys. */
class LiveView {
    private static final String STYLE =
        '-fx-background-color: rgba(0,0,0,0.65); -fx-text-fill: white; -fx-padding: 4 8; -fx-background-radius: 4'

    /** Width of the overview in the other corner with the space around both, px. */
    private static final int BESIDE_PX = 190

    final Outlines outlines
    private final Settings settings
    private final QuPathViewer viewer
    private final Map handlers
    private final Label line = new Label()

    /** Shows itself; `handlers` see keys and mouse before the viewer does. */
    LiveView(Settings settings, QuPathViewer viewer, Map handlers) {
        this.settings = settings
        this.viewer = viewer
        this.handlers = handlers
        outlines = new Outlines(viewer.overlayOptions)
        viewer.customOverlayLayers.add(outlines)
        line.setId('wsisam-line')
        line.setStyle(STYLE)
        line.setMouseTransparent(true)
        line.setWrapText(true)
        line.maxWidthProperty().bind(viewer.view.widthProperty().subtract(BESIDE_PX))
        StackPane.setAlignment(line, Pos.TOP_LEFT)
        StackPane.setMargin(line, new Insets(10))
        viewer.view.children.add(line)
        handlers.each { type, handler -> viewer.view.addEventFilter(type, handler) }
    }

    void remove() {
        handlers.each { type, handler -> viewer.view.removeEventFilter(type, handler) }
        viewer.view.children.remove(line)
        viewer.customOverlayLayers.remove(outlines)
    }

    void showPreview(Shape shape) {
        if (outlines.preview == shape)
            return
        outlines.preview = shape
        viewer.repaint()
    }

    void showState(String state, boolean isOutside, boolean hasCandidates) {
        def words = ['WSI-SAM live', isOutside ? 'clicks OUTSIDE' : 'clicks inside',
            settings['Class'] ? "class ${settings['Class']}" : null, settings['Model'],
            settings.sizeHint ? "objects of about ${settings.sizeHint as int} µm" : null, state]
        def undo = new KeyCodeCombination(KeyCode.Z, KeyCombination.SHORTCUT_DOWN).displayText
        def keys = ['X: inside or outside', 'Enter: next object', hasCandidates ? '[ ]: smaller, larger' : null,
            "$undo: back"]
        line.setText(words.findAll().join('  ·  ') + '\n' + keys.findAll().join('   '))
    }
}
