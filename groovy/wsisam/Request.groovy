package wsisam

import com.google.gson.JsonParseException
import java.util.concurrent.*
import java.util.concurrent.atomic.AtomicBoolean
import javafx.application.Platform
import qupath.lib.images.ImageData
import qupath.lib.objects.PathObject

import static wsisam.Json.logger

/** What is asked of the server, and its answers. */
class Request {
    ImageData imageData
    Map select                          // which prompts are answered; null where nothing is drawn
    String refinedId                    // of the outline that points correct
    Map options = [:]
    Map<String, String> sent = [:]      // objects as they were when they were sent, by their ids
    List<Map> planes = []               // of each plane: what is drawn there, with its features
    volatile String doing = 'prompts'
    volatile String waits               // for what, until the server answers
    volatile List<String> notes = []    // what a person should know meanwhile
    volatile int done, total
    volatile boolean isCancelled
    volatile CompletableFuture response
    volatile Closeable body
    Closure onArrival                   // called in QuPath's thread while answers come
    final Queue<Answer> arrived = new ConcurrentLinkedQueue<>()
    final AtomicBoolean isShowing = new AtomicBoolean()
    final List<PathObject> changed = [] // touched by one thread only
    final List<Answer> kept = []    // answers for an image that is not shown any more
    final List<String> reasons = []
    int answered, skipped               // prompts with an outline, and those that nothing can be made of

    /** Works in a thread of its own; `then` is told in QuPath's thread why that failed, or null. */
    void inBackground(Closure work, Closure then) {
        Thread.startDaemon('wsi-sam') {
            def failure = failureOf(work)
            Platform.runLater { then(failure) }
        }
    }

    /** Describes for the user what went wrong; null if nothing did, or it was canceled. */
    String failureOf(Closure work) {
        try {
            work()
            return null
        } catch (CancellationException e) {
            return null
        } catch (ServerException e) {
            return isCancelled ? null : e.message
        } catch (IOException | JsonParseException e) {
            logger.debug('The response ended early', e)
            return isCancelled ? null :
                'The server ended the connection in the middle of its response. ' + Server.LOOK
        } catch (RuntimeException e) {
            logger.error(e.message, e)
            return "The script failed: $e. See the log for details (View > Show log)."
        }
    }

    void arrive(List<Answer> answers) {
        arrived.addAll(answers)
        if (onArrival != null && isShowing.compareAndSet(false, true))
            Platform.runLater { onArrival.call() }
    }

    /** Closes the connection, which tells the server to stop. */
    void cancel() {
        isCancelled = true
        response?.cancel(true)
        body?.close()
    }
}
