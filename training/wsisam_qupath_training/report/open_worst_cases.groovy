// Shows the worst cases of a training in QuPath. Open the project that the annotations are from, and
// run this: a list opens, and a click on one of its rows shows that image, with the object selected in
// the middle. Nothing is changed.
import javafx.application.Platform
import javafx.beans.value.ChangeListener
import javafx.collections.FXCollections
import javafx.scene.Scene
import javafx.scene.control.ListView
import javafx.stage.Stage
import qupath.fx.dialogs.Dialogs
import qupath.lib.gui.QuPathGUI

def cases = [
CASES
]

def gui = QuPathGUI.getInstance()
if (gui?.getProject() == null) {
    println 'Open the project that the annotations are from, and run this again.'
    return
}

def find = { hierarchy, id -> hierarchy?.getAllObjects(false)?.find { it.getID().toString() == id } }

// Names of exported files are shortened and cleaned, so that likely images are looked into first.
def plain = { text -> text.toLowerCase().replaceAll(/[^\p{L}\p{N}]/, '') }
def distance = { entry, image ->
    def (name, wanted) = [plain(entry.getImageName()), plain(image)]
    name == wanted ? 0 : (name.startsWith(wanted) || wanted.startsWith(name)) ? 1 : 2
}
def findEntry = { one ->
    def entries = gui.getProject().getImageList().sort(false) { distance(it, one.image) }
    entries.find { it.hasImageData() && find(it.readHierarchy(), one.id) }
}

def show = { viewer, object ->
    def (roi, view) = [object.getROI(), viewer.getView()]
    def sides = [roi.getBoundsWidth() / view.getWidth(), roi.getBoundsHeight() / view.getHeight()]
    viewer.setZPosition(roi.getZ())
    viewer.setTPosition(roi.getT())
    viewer.setDownsampleFactor(Math.max(2 * sides.max(), 0.25) as double)
    viewer.setCenterPixelLocation(roi.getCentroidX(), roi.getCentroidY())
    viewer.setSelectedObject(object)
}

def open = { one ->
    def isOpen = find(gui.getViewer().getHierarchy(), one.id) != null
    def entry = isOpen ? null : findEntry(one)
    if (!isOpen && entry == null)
        Dialogs.showErrorNotification('Worst cases', 'No image of this project has that object any more.')
    else if (isOpen || gui.openImageEntry(entry))
        show(gui.getViewer(), find(gui.getViewer().getHierarchy(), one.id))
}

Platform.runLater {
    def list = new ListView(FXCollections.observableArrayList(cases*.label))
    def chosen = { value, before, index -> open(cases[index as int]) } as ChangeListener
    list.getSelectionModel().selectedIndexProperty().addListener(chosen)
    def window = new Stage()
    window.initOwner(gui.getStage())
    window.setTitle('Worst cases')
    window.setScene(new Scene(list, 560, 320))
    window.show()
}
