package wsisam

import javafx.application.Platform
import javafx.beans.value.ChangeListener
import javafx.scene.control.*
import javafx.scene.input.KeyCombination
import qupath.fx.dialogs.Dialogs
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.tools.MenuTools

/** Installs Extensions > WSI-SAM in QuPath's menu, before what its commands do is loaded. */
class MenuInstaller {
    private static final String MENU = 'Extensions>WSI-SAM'
    private static final String HELP = 'https://github.com/wsisam-qupath/wsisam-qupath/blob/main/docs/qupath.md'

    private final QuPathGUI gui = QuPathGUI.instance
    private final File script
    private Object commands
    /** What each command does, shown where the mouse rests on it. */
    private final Map<String, String> tips = [:]

    MenuInstaller(File script) { this.script = script }

    /** Adds the commands to the menu, in place of those of an earlier run. */
    void install() {
        def menu = gui.getMenu(MENU, true)
        menu.items.findAll { it instanceof CheckMenuItem }.each { it.setSelected(false) }
        menu.items.clear()
        def outside = checkItem('Click outside of the object', 'Switches between clicks inside and outside') { now ->
            run { it.live.clickOutside(now) }
        }
        def live = null
        live = checkItem('Live mode', 'Outlines what you draw and click as you do') { now ->
            if (!now)
                outside.setSelected(false)    // else rectangles that are drawn later would be background
            run { it.live.set(live, now) }
        }
        addForImage('Segment selected', 'segmentSelected',
            'Outlines the selected rectangles, points or rough outlines')
        addForImage('Segment all prompts in this image', 'segmentAll', 'Outlines what all rectangles and points mark')
        add('Segment whole project…', 'Outlines what is marked in all images of the project') { it.project.segment() }
        MenuTools.addMenuItems(menu, null, live, outside)
        gui.setAccelerator(outside, KeyCombination.valueOf('X'))
        addForImage('Refine selected with points', 'refineSelected',
            'Corrects an outline with points, scribbles and background')
        addForImage('Find all like the selected…', 'findLikeSelected',
            'Finds more objects like the selected ones of one class')
        addForImage('Turn detections into annotations', 'turnIntoAnnotations',
            'Makes results yours, to edit them by hand')
        add('Train on this project…', 'Trains a model on your annotations') { it.train() }
        MenuTools.addMenuItems(menu, [null] as Object[])
        add('Settings…', 'Class, type and size of results, model, preview, server elsewhere') { it.showSettings() }
        add('Server>Start', 'Starts the server on this computer, unless one runs') { it.startServer() }
        add('Server>Stop', 'Stops the server that QuPath has started') { it.stopServer() }
        add('Server>Status…', 'Opens the page with the state of the server') { it.showServerStatus() }
        add('Help', 'Opens the documentation') { QuPathGUI.openInBrowser(HELP) }
        [menu, gui.getMenu("$MENU>Server", true)].each { explainItems(it) }
        addButton(live)
    }

    private void add(String name, String tip, Closure command) {
        tips[name.tokenize('>')[-1]] = tip
        gui.installCommand("$MENU>$name") { run(command) }
    }

    private void addForImage(String name, String method, String tip) {
        tips[name] = tip
        gui.installImageDataCommand("$MENU>$name") { image -> run { it."$method"(image) } }
    }

    private CheckMenuItem checkItem(String name, String tip, Closure command) {
        tips[name] = tip
        def item = new CheckMenuItem(name)
        item.selectedProperty().addListener({ o, was, now -> command(now) } as ChangeListener)
        return item
    }

    /** Explains the items of a menu, which have something to rest the mouse on only while they are shown. */
    private void explainItems(Menu menu) {
        menu.setOnShown {
            menu.items.findAll { it.styleableNode != null && tips[it.text] }
                .each { Tooltip.install(it.styleableNode, new Tooltip(tips[it.text])) }
        }
    }

    private void addButton(CheckMenuItem live) {
        def button = new ToggleButton('Live')
        button.setId('wsisam-live')
        button.setTooltip(new Tooltip('WSI-SAM live mode: outline what you draw and click as you do'))
        button.setFocusTraversable(false)    // else Enter, which accepts an object, would press it
        button.selectedProperty().bindBidirectional(live.selectedProperty())
        gui.toolBar.items.removeIf { it.id == button.id }
        gui.toolBar.items.add(0, button)    // at the end it would be hidden in a narrow window
    }

    /** Runs a command in QuPath's thread, once all of them are loaded in another one. */
    private void run(Closure command) {
        if (commands != null) {
            command(commands)
            return
        }
        Thread.startDaemon('wsi-sam') {
            try {
                def loaded = load()
                Platform.runLater { command(loaded) }
            } catch (Exception e) {
                Dialogs.showErrorMessage('WSI-SAM', e)
            }
        }
    }

    /** Loads the commands, unless they are. */
    synchronized Object load() {
        // By its name, else it would be compiled together with this class.
        commands = commands ?: getClass().classLoader.loadClass('wsisam.Commands').newInstance(script)
        return commands
    }
}
