/**
 * Outlines the object in a rectangle or at a click. For QuPath 0.5.1 to 0.7.0.
 *
 * Run this file once in QuPath's script editor (Ctrl+R), or make it QuPath's startup script: it puts
 * its commands under Extensions > WSI-SAM. The rest is in the folder wsisam beside it and is loaded in
 * the background, so that QuPath does not wait for it. Without a window
 * (`QuPath script -p ... -i ... -s`), or with options in `wsisam`, as a workflow step gives them, it
 * segments all prompts of the image.
 */

def file = binding.variables['qupath.script.file']
def source = getClass().protectionDomain.codeSource?.location
def script = [
    file ? new File(file as String) : null,
    source?.protocol == 'file' ? new File(source.toURI()) : null,
    new File(qupath.lib.gui.prefs.PathPrefs.userPathProperty().get() ?: '', 'scripts/WSI-SAM/wsi_sam.groovy')
].find { it && new File(it.parentFile, 'wsisam/Commands.groovy').file }
if (script == null)
    throw new FileNotFoundException(
        'The folder wsisam is missing beside wsi_sam.groovy: run `wsisam-qupath setup`, then start QuPath again.')
def configuration = new org.codehaus.groovy.control.CompilerConfiguration(sourceEncoding: 'UTF-8')
def loader = new GroovyClassLoader(getClass().classLoader, configuration)
loader.addURL(script.parentFile.toURI().toURL())
def load = { loader.loadClass("wsisam.$it").newInstance(script) }
def options = binding.variables.wsisam
if (options != null || qupath.lib.gui.QuPathGUI.instance == null)
    load('Commands').segmentWithoutWindow(qupath.lib.scripting.QP.currentImageData, options ?: [:])
else
    Thread.startDaemon('wsi-sam') {
        def menu = load('MenuInstaller')
        javafx.application.Platform.runLater { menu.install() }
        menu.load()    // so that the first command need not wait
    }
