package wsisam

import javafx.beans.property.StringProperty
import qupath.fx.dialogs.FileChoosers
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.prefs.PathPrefs
import qupath.lib.gui.tools.GuiTools
import qupath.lib.plugins.parameters.ParameterList

/** What the user chose, kept by QuPath. */
class Settings {
    static final Map<String, Double> SIZES_UM =
        ['unknown size': null, 'nucleus (10 µm)': 10d, 'gland (60 µm)': 60d, 'region (300 µm)': 300d]
    private static final String CHOOSE = 'Choose a file…', EACH = '(that of each prompt)'
    private static final String FIRST = '(the first of the server)', NONE = '(none)'

    private final Map<String, StringProperty> chosen = [
        ObjectType: 'detection', Class: '', ObjectSize: 'unknown size', Model: '', Preview: 'yes',
        Server: '', Token: '', Certificate: ''
    ].collectEntries { name, value -> [name, PathPrefs.createPersistentPreference("wsisam$name", value)] }
    /** Size of the object that was chosen last in live mode, µm. */
    Double sizeHint

    String getAt(String name) {
        return chosen[name].get().trim()
    }

    void putAt(String name, String value) {
        chosen[name].set(value)
    }

    /** The options of a request, as the server names them. */
    Map options() {
        return [object_size_um: sizeHint ?: SIZES_UM[this['ObjectSize']], object_type: this['ObjectType'],
            'class': this['Class'] ?: null]
    }

    /** Shows all of them in a dialog; false if the user cancels. */
    boolean show(List<String> models) {
        def classes = QuPathGUI.instance.availablePathClasses*.toString().findAll { it != 'null' && !it.endsWith('*') }
        def rows = new ParameterList()
        def choice = { name, title, choices, tip ->
            def all = (choices + this[name]).findAll().unique()
            rows.addChoiceParameter(name, title, this[name] ?: all[0], all, tip)
        }
        choice('ObjectType', 'Results are', ['detection', 'annotation'],
            'Detections are lightweight; annotations can be edited by hand')
        choice('Class', 'Class of all results', [EACH] + classes,
            'The class of each prompt, or this one for all')
        choice('ObjectSize', 'Points mark a', SIZES_UM.keySet() as List,
            'Size of objects that are marked by points only. Rectangles show the size themselves')
        choice('Model', 'Model', [FIRST] + models, 'Which of the models of the server answers')
        choice('Preview', 'Outline under a resting cursor', ['yes', 'no'],
            'In live mode with the points tool: what a click would give')
        rows.addStringParameter('Server', 'Address of a server elsewhere', this['Server'],
            'Such as https://gpu.example.org:8473. Empty: the server on this computer, which is found by itself')
        rows.addStringParameter('Token', 'Its token', this['Token'],
            'Token that the server printed when it started. Stored in the preferences of QuPath')
        choice('Certificate', 'Its certificate', [NONE, CHOOSE],
            'PEM file to trust if the server uses a self-made certificate')
        if (!GuiTools.showParameterDialog(Say.TITLE, rows))
            return false
        rows.parameters.each { name, row ->
            def value = row.valueOrDefault as String
            if (value == CHOOSE)
                value = FileChoosers.promptForFile(Say.TITLE)?.path ?: this[name]
            this[name] = value in [EACH, FIRST, NONE] ? '' : value.trim()
        }
        sizeHint = null
        return true
    }
}
