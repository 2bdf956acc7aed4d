/**
 * Installs Extensions > WSI-SAM in QuPath's menu. What its commands do is in wsi_sam_commands.groovy
 * beside this file, which is loaded at first use.
 */

import groovy.transform.Field
import javafx.beans.value.ChangeListener
import javafx.scene.control.CheckMenuItem
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

/** Adds the commands to the menu, in place of those of an earlier run. */
void install() {
    def menu = gui.getMenu(MENU, true)
    menu.getItems().findAll { it instanceof CheckMenuItem }.each { it.setSelected(false) }
    menu.getItems().clear()
    def live = new CheckMenuItem('Live mode')
    live.selectedProperty().addListener({ o, was, now -> run('setLive', live, now) } as ChangeListener)
    add('Segment selected', 'segmentSelected')
    add('Segment all prompts in this image', 'segmentAll')
    addPlain('Segment whole project…', 'segmentProject')
    def outside = new CheckMenuItem('Click outside of the object')
    outside.selectedProperty().addListener({ o, was, now -> run('clickOutside', now) } as ChangeListener)
    MenuTools.addMenuItems(menu, null, live, outside)
    gui.setAccelerator(outside, KeyCombination.valueOf('X'))
    add('Refine selected with points', 'refineSelected')
    add('Find all like the selected…', 'findLikeSelected')
    add('Turn detections into annotations', 'turnIntoAnnotations')
    addPlain('Train on this project…', 'trainOnProject')
    MenuTools.addMenuItems(menu, [null] as Object[])
    addPlain('Settings…', 'showSettings')
    addPlain('Server>Start', 'startFromMenu')
    addPlain('Server>Stop', 'stopServer')
    addPlain('Server>Status…', 'showServerStatus')
    addPlain('Help', 'showHelp')
    def button = new ToggleButton('Live')
    button.setId('wsisam-live')
    button.setTooltip(new Tooltip('WSI-SAM live mode: outline what you draw and click as you do'))
    button.setFocusTraversable(false)    // else Enter, which accepts an object, would press it
    button.selectedProperty().bindBidirectional(live.selectedProperty())
    gui.getToolBar().getItems().removeIf { it.getId() == button.getId() }
    gui.getToolBar().getItems().add(0, button)    // at the end it would be hidden in a narrow window
}

void add(String name, String command) {
    gui.installImageDataCommand("$MENU>$name", { imageData -> run(command, imageData) })
}

void addPlain(String name, String command) {
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
    commands = commands ?: new GroovyShell(getClass().getClassLoader()).parse(new File(folder, 'wsi_sam_commands.groovy'))
    return commands
}
