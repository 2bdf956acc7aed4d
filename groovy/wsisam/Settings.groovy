package wsisam

import javafx.beans.property.StringProperty
import javafx.scene.control.*
import javafx.scene.layout.GridPane
import qupath.fx.dialogs.*
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.prefs.PathPrefs

/** What the user chose, kept by QuPath. */
class Settings {
    static final Map<String, Double> SIZES_UM =
        ['unknown size': null, 'nucleus (10 µm)': 10d, 'gland (60 µm)': 60d, 'region (300 µm)': 300d]

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
        def rows = [
            ObjectType: ['Results are', ['detection', 'annotation'],
                'Detections are lightweight; annotations can be edited by hand'],
            Class: ['Class of all results', ['(that of each prompt)'] + classes,
                'The class of each prompt, or this one for all'],
            ObjectSize: ['Points mark a', SIZES_UM.keySet() as List,
                'Size of objects that are marked by points only. Rectangles show the size themselves'],
            Model: ['Model', ['(the first of the server)'] + models, 'Which of the models of the server answers'],
            Preview: ['Outline under a resting cursor', ['yes', 'no'],
                'In live mode with the points tool: what a click would give'],
            Server: ['Address of a server elsewhere', null,
                'Such as https://gpu.example.org:8473. Empty: the server on this computer, which is found by itself'],
            Token: ['Its token', null,
                'Token that the server printed when it started. Stored in the preferences of QuPath'],
            Certificate: ['Its certificate', null, 'PEM file to trust if the server uses a self-made certificate']]
        def grid = new GridPane()
        grid.setHgap(10)
        grid.setVgap(8)
        def fields = [:]
        rows.eachWithIndex { name, row, n ->
            def (title, choices, tip) = row
            def field = choices == null ? new TextField(this[name]) : choiceOf(choices, this[name])
            field.setTooltip(new Tooltip(tip))
            field.setMaxWidth(Double.MAX_VALUE)
            fields[name] = field
            grid.addRow(n, new Label(title), field)
        }
        def choose = new Button('Choose…')
        choose.setOnAction {
            fields.Certificate.setText(FileChoosers.promptForFile(Say.TITLE)?.path ?: fields.Certificate.text)
        }
        grid.add(choose, 2, rows.size() - 1)
        if (!Dialogs.showConfirmDialog(Say.TITLE, grid))
            return false
        fields.each { name, field ->
            def given = field instanceof TextField ? field.text : field.value.replaceAll('^\\(.*', '')
            this[name] = given.trim()
        }
        sizeHint = null
        return true
    }

    private static ComboBox choiceOf(List<String> choices, String chosen) {
        def field = new ComboBox()
        field.items.setAll((choices + chosen).findAll().unique())
        field.setValue(chosen ?: choices[0])
        return field
    }
}
