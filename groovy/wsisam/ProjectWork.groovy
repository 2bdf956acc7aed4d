package wsisam

import javafx.application.Platform
import qupath.fx.dialogs.Dialogs
import qupath.fx.utils.FXUtils
import qupath.lib.gui.QuPathGUI
import qupath.lib.images.ImageData

import static wsisam.Drawing.*
import static wsisam.Json.*
import static wsisam.Say.TITLE

/** What the server does with a whole project: segments its images, or trains on them. */
class ProjectWork {
    private static final Map<String, Integer> MINUTES = [
        'as long as the annotations are worth': null, 'about 10 minutes': 10, 'about an hour': 60,
        'about 8 hours': 480]

    /** Of more, it takes too long to find out whether they are saved. */
    private static final int MANY_OBJECTS = 10_000

    Settings settings
    Server server
    Answers answers

    /** Lets the server segment the project. It does not write the images shown here; their results are added here. */
    void segment() {
        def project = projectOr('Open a project first, or use Segment all prompts in this image.')
        if (project == null)
            return
        def text = "The server segments all rectangles and points in ${project.size()} images and saves the outlines " +
            'in the images that are not open here. Do not edit those images until it has finished.'
        if (!Dialogs.showConfirmDialog(TITLE, text) || !saveShown(project))
            return
        def request = new Request(doing: 'images', options: settings.options())
        haveDone(request, { runJob(request, project) }) { Say.inform(it) }
    }

    /** Has the server train on the areas that are annotated in the project; `onEnd` is called after its offer. */
    void train(Closure onEnd) {
        def project = projectOr('Open a project with annotated images first.')
        if (project == null)
            return
        def text = Say.wrapped('The server trains a model on the areas that you drew or took over as annotations, in ' +
            'all saved images, and compares it with its present one on slides that it leaves out, so that two ' +
            'slides must be annotated at least. You can go on working here. Name of the new model:')
        def folder = project.getPath().getParent().getFileName().toString()
        def name = Dialogs.showInputDialog(TITLE, text, folder.replaceAll('[^A-Za-z0-9 _-]', '-'))?.trim()
        if (!name)
            return
        def times = MINUTES.keySet() as List
        def time = Dialogs.showChoiceDialog(TITLE, 'How long may the training take?', times, times[0])
        if (time == null || !saveShown(project))
            return
        def request = new Request(doing: 'The training starts')
        haveDone(request, { runTraining(request, project, [name: name, minutes: MINUTES[time]]) }) {
            offer(it)
            onEnd()
        }
    }

    private static projectOr(String hint) {
        return QuPathGUI.instance.project ?: Say.inform(hint)
    }

    /** Has the server do something while a small window shows how far it is; `then` is told what was made. */
    private static void haveDone(Request request, Closure work, Closure then) {
        def made = null
        Say.showing(request, { made = work() }) { failure ->
            if (failure) {
                logger.warn(failure)
                Dialogs.showErrorMessage(TITLE, Say.wrapped(failure))    // stays until it is read: the work took long
            }
            if (made)
                then(made)
        }
    }

    /** Saves changed images that are shown, as the server reads saved files; false to cancel. */
    private boolean saveShown(project) {
        def changed = answers.shownImages(project).values().findAll { isUnsaved(project.getEntry(it), it) }
        def text = 'The server reads saved images only. Save the changes of the open image first?'
        if (changed && !Dialogs.showConfirmDialog(TITLE, text))
            return false
        changed.each { project.getEntry(it).saveImageData(it) }
        project.syncChanges()   // which keeps a pixel size that was entered
        return true
    }

    /** Tells whether there is more than what QuPath changes by itself when it opens an image, as stains. */
    private static boolean isUnsaved(entry, ImageData shown) {
        if (!shown.isChanged() || shown.hierarchy.nObjects() > MANY_OBJECTS)
            return shown.isChanged()
        def saved = entry.readImageData()
        def (before, now) = [saved, shown].collect {
            [it.server.pixelCalibration, it.hierarchy.getAllObjects(false).collect { textOf(it) } as Set]
        }
        saved.server.close()
        return before != now
    }

    /** Notes the results in images that are shown: only those that nobody changes until the job ends are replaced. */
    private Set<String> noteShown(Request request, project) {
        return FXUtils.callOnApplicationThread {
            def shown = answers.shownImages(project)
            shown.values().each { imageData ->
                drawnOrResults(imageData).findAll { isResult(it) }
                    .each { request.sent.putIfAbsent(it.ID.toString(), textOf(it)) }
            }
            shown.keySet()
        }
    }

    /** Has a job done. Returns a summary for the user; null if it was canceled. */
    private String runJob(Request request, project) {
        def shown = noteShown(request, project)
        server.findServer(request)    // which may be canceled; after that, what was begun is told to stop
        def job = server.ask(new Request(), '/v1/jobs', 'POST', [
            project: project.path.toUri().toString(), project_is_open: true, open_images: shown as List,
            options: request.options])
        def path = "/v1/jobs/${job.id}"
        job = follow(request, path, job) {
            request.done = it.images_ended
            request.total = it.images ?: 0
            def now = noteShown(request, project)
            if (now != shown)
                server.ask(new Request(), "$path/open-images", 'PUT', [images: now as List])
            shown = now
        }
        if (job == null)
            return null
        def records = []
        server.eachRecord(server.send(new Request(), 'GET', "$path/results")) { records << it }
        records.groupBy { it.image }
            .each { id, found -> answers.addToEntry(project, id, found.collect { new Answer(it) }, request.sent) }
        server.ask(new Request(), path, 'DELETE')
        return job.summary
    }

    private Map runTraining(Request request, project, Map wanted) {
        server.findServer(request)    // as above
        def training = server.ask(
            new Request(), '/v1/trainings', 'POST', [project: project.path.toUri().toString()] + wanted)
        def path = "/v1/trainings/${training.id}"
        training = follow(request, path, training) {
            request.doing = it.progress ?: request.doing
            request.notes = it.notes
            request.done = it.done ?: 0
            request.total = it.total ?: 0
        }
        if (training == null)
            Say.inform('The training is stopped. With the same name it goes on from there.')
        else if (training.has_report)
            showReport("$path/report")
        return training
    }

    /** Follows work on the server to its end; null if it was canceled here. */
    private Map follow(Request request, String path, Map work, Closure note) {
        while (work.state in ['waiting', 'running']) {
            if (request.isCancelled) {
                server.ask(new Request(), path, 'DELETE')
                return null
            }
            Thread.sleep(500)
            work = server.ask(new Request(), path)
            note(work)
        }
        if (work.state == 'failed')
            throw new ServerException(work.reason)
        return work
    }

    private void showReport(String path) {
        def page = File.createTempFile('wsi-sam-training', '.html')
        page.setText(server.contentOf(server.send(new Request(), 'GET', path)), 'UTF-8')
        page.deleteOnExit()
        Platform.runLater { QuPathGUI.openInBrowser(page.toURI().toString()) }
    }

    private void offer(Map training) {
        def (summary, adapter) = [training.summary, training.adapter]
        if (adapter == null)
            Dialogs.showPlainMessage(TITLE, summary)
        else if (Dialogs.showYesNoDialog(
                TITLE, "$summary\n\nUse it from now on? You can change this in the settings (Model)."))
            settings['Model'] = adapter
    }
}
