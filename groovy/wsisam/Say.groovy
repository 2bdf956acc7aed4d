package wsisam

import javafx.animation.PauseTransition
import javafx.geometry.Insets
import javafx.geometry.Pos
import javafx.scene.Scene
import javafx.scene.control.*
import javafx.scene.layout.HBox
import javafx.stage.Stage
import qupath.fx.dialogs.Dialogs
import qupath.lib.gui.QuPathGUI

import static wsisam.Json.logger

/** Tells the user what happens. */
class Say {
    static final String TITLE = 'WSI-SAM'
    private static final int BEFORE_PROGRESS_MS = 700, MARGIN_PX = 20

    /** Shows a message for some seconds, and keeps it in QuPath's log. */
    static void inform(String message) {
        logger.info(message)
        if (QuPathGUI.instance != null)
            Dialogs.showInfoNotification(TITLE, wrapped(message))
    }

    /** Tells why a request failed, if it did, or for which prompts there is no outline. */
    static void report(Request request, String failure) {
        def reasons = request.isCancelled ? [] : request.reasons
        if (failure) {
            logger.warn(failure)
            Dialogs.showErrorNotification(TITLE, wrapped(failure))
        } else if (reasons) {
            Dialogs.showWarningNotification(
                TITLE, wrapped("No outline for ${reasons.size()} of ${request.done}: ${reasons[0]}."))
        }
    }

    /** Breaks text into lines that fit a notification, which does not wrap them. */
    static String wrapped(String text) {
        return text.replaceAll(/(.{50,75}?) /, '$1\n')
    }

    /** Works in the background, and shows how far it is; `then` is told why it failed, or null. */
    static void showing(Request request, Closure work, Closure then) {
        def close = showProgress(request)
        request.inBackground(work) { failure ->
            close.call()
            then(failure)
        }
    }

    /** Shows a window that blocks nothing, but only if results take a moment. Returns what closes it. */
    private static Closure showProgress(Request request) {
        def (bar, label, cancel) = [new ProgressBar(), new Label(), new Button('Cancel')]
        def row = new HBox(10, label, bar, cancel)
        row.setPadding(new Insets(15))
        row.setAlignment(Pos.CENTER_LEFT)
        def stage = new Stage()
        def owner = QuPathGUI.instance.stage
        stage.initOwner(owner)
        stage.setTitle(TITLE)
        stage.setScene(new Scene(row))
        cancel.setOnAction { request.cancel() }
        stage.setOnCloseRequest { request.cancel() }
        def tick = new PauseTransition(javafx.util.Duration.millis(BEFORE_PROGRESS_MS))
        tick.setOnFinished {
            def (done, total) = [request.done, request.total]
            def count = total ? ": $done of $total" : done ? ": $done found" : ''
            def state = (request.waits ?: request.doing + count).capitalize()
            label.setText(([state] + request.notes.collect { wrapped(it) }).join('\n'))
            bar.setProgress(done && total ? done / total : ProgressBar.INDETERMINATE_PROGRESS)
            stage.sizeToScene()    // the label grows
            if (!stage.showing) {
                stage.show()
                stage.setX(owner.x + MARGIN_PX)    // beside the slide, which it hid
                stage.setY(owner.y + owner.height / 2)
            }
            tick.playFromStart()
        }
        tick.play()
        return {
            tick.stop()
            stage.close()
        }
    }
}
