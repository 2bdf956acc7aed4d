/**
 * Outlines the object in a rectangle or at a click. For QuPath 0.5.1 to 0.7.0.
 *
 * Run this file once in QuPath's script editor (Ctrl+R), or make it QuPath's startup script: it puts
 * its commands under Extensions > WSI-SAM. The rest is in the files beside this one and is loaded in
 * the background, so that QuPath does not wait for it. Without a window
 * (`QuPath script -p ... -i ... -s`) it segments all prompts of the image.
 */

def file = binding.variables['qupath.script.file']
def source = getClass().protectionDomain.codeSource?.location
def folder = [
    file ? new File(file as String).parentFile : null,
    source?.protocol == 'file' ? new File(source.toURI()).parentFile : null,
    new File(qupath.lib.gui.prefs.PathPrefs.userPathProperty().get() ?: '', 'scripts/WSI-SAM')
].find { it && new File(it, 'wsi_sam_menu.groovy').file }
if (folder == null)
    throw new FileNotFoundException(
        'wsi_sam_menu.groovy is missing: run `wsisam-qupath setup`, then start QuPath again.')
def load = { new GroovyShell(getClass().classLoader).parse(new File(folder, it as String)) }
if (qupath.lib.gui.QuPathGUI.instance == null)
    load('wsi_sam_commands.groovy').segmentWithoutWindow(qupath.lib.scripting.QP.currentImageData)
else
    Thread.startDaemon('wsi-sam') {
        def menu = load('wsi_sam_menu.groovy')
        menu.folder = folder
        javafx.application.Platform.runLater { menu.install() }
    }
