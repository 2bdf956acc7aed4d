/**
 * Installs Extensions > WSI-SAM in QuPath's menu. What its commands do is in wsi_sam_commands.groovy
 * beside this file, which is loaded at first use.
 */

import groovy.transform.Field
import javafx.beans.value.ChangeListener
import javafx.scene.control.CheckMenuItem
import javafx.scene.control.Menu
import javafx.scene.control.ToggleButton
import javafx.scene.control.Tooltip
import javafx.scene.input.KeyCombination
import qupath.fx.dialogs.Dialogs
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.tools.MenuTools
import javafx.application.Platform

@Field final String MENU = 'Extensions>WSI-SAM'
@Field final QuPathGUI gui = QuPathGUI.getInstance()
@Field File folder
@Field Script commands
/** What each command does, shown where the mouse rests on it. */
@Field final Map<String, String> tips = [:]

/** Adds the commands to the menu, in place of those of an earlier run. */
void install() {
    def menu = gui.getMenu(MENU, true)
    menu.getItems().findAll { it instanceof CheckMenuItem }.each { it.setSelected(false) }
    menu.getItems().clear()
    def live = new CheckMenuItem('Live mode')
    def outside = new CheckMenuItem('Click outside of the object')
    live.selectedProperty().addListener({ o, was, now ->
        if (!now)
            outside.setSelected(false)    // else rectangles that are drawn later would be background
        run('setLive', live, now)
    } as ChangeListener)
    outside.selectedProperty().addListener({ o, was, now -> run('clickOutside', now) } as ChangeListener)
    tips[live.getText()] = 'Outlines what you draw and click as you do'
    tips[outside.getText()] = 'Switches between clicks inside and outside of the object'
    add('Segment selected', 'segmentSelected', 'Outlines the selected rectangles, points or rough outlines')
    add('Segment all prompts in this image', 'segmentAll', 'Outlines what all rectangles and points mark')
    addPlain('Segment whole project…', 'segmentProject', 'Outlines what is marked in all images of the project')
    MenuTools.addMenuItems(menu, null, live, outside)
    gui.setAccelerator(outside, KeyCombination.valueOf('X'))
    add('Refine selected with points', 'refineSelected', 'Corrects an outline with points, scribbles and background')
    add('Find all like the selected…', 'findLikeSelected', 'Finds more objects like the selected ones of one class')
    add('Turn detections into annotations', 'turnIntoAnnotations', 'Makes results yours, to edit them by hand')
    addPlain('Train on this project…', 'trainOnProject', 'Trains a model on your annotations')
    MenuTools.addMenuItems(menu, [null] as Object[])
    addPlain('Settings…', 'showSettings', 'Class, type and size of results, model, preview, and a server elsewhere')
    addPlain('Server>Start', 'startFromMenu', 'Starts the server on this computer, unless one runs')
    addPlain('Server>Stop', 'stopServer', 'Stops the server that QuPath has started')
    addPlain('Server>Status…', 'showServerStatus', 'Opens the page with the state of the server')
    addPlain('Help', 'showHelp', 'Opens the documentation')
    [menu, gui.getMenu("$MENU>Server", true)].each { explainItems(it) }
    addButton(live)
}

void addButton(CheckMenuItem live) {
    def button = new ToggleButton('Live')
    button.setId('wsisam-live')
    button.setTooltip(new Tooltip('WSI-SAM live mode: outline what you draw and click as you do'))
    button.setFocusTraversable(false)    // else Enter, which accepts an object, would press it
    button.selectedProperty().bindBidirectional(live.selectedProperty())
    gui.getToolBar().getItems().removeIf { it.getId() == button.getId() }
    gui.getToolBar().getItems().add(0, button)    // at the end it would be hidden in a narrow window
}

/** Explains the items of a menu, which have something to rest the mouse on only while they are shown. */
void explainItems(Menu menu) {
    menu.setOnShown {
        for (item in menu.getItems()) {
            def node = item.getStyleableNode()
            if (node != null && tips[item.getText()])
                Tooltip.install(node, new Tooltip(tips[item.getText()]))
        }
    }
}

void add(String name, String command, String tip) {
    tips[name] = tip
    gui.installImageDataCommand("$MENU>$name", { imageData -> run(command, imageData) })
}

void addPlain(String name, String command, String tip) {
    tips[name.tokenize('>')[-1]] = tip
    gui.installCommand("$MENU>$name", { run(command) })
}

/** Runs a command in QuPath's thread, once all commands are loaded in another one. */
void run(String command, Object... arguments) {
    if (commands != null && Platform.isFxApplicationThread()) {
        commands.invokeMethod(command, arguments)
        return
    }
    Thread.startDaemon('wsi-sam') {
        try {
            def script = load()
            Platform.runLater { script.invokeMethod(command, arguments) }
        } catch (Exception e) {
            Dialogs.showErrorMessage('WSI-SAM', e)
        }
    }
}

synchronized Script load() {
    def file = new File(folder, 'wsi_sam_commands.groovy')
    commands = commands ?: new GroovyShell(getClass().getClassLoader()).parse(file)
    return commands
}
