package wsisam

import java.awt.Rectangle
import qupath.lib.images.ImageData
import qupath.lib.roi.*
import qupath.lib.roi.interfaces.ROI

import static wsisam.Drawing.*

/** What was drawn or changed on an image, and has no answer yet. */
class Changes {
    final Set<String> ids = []
    /** Where it was, px; null if nothing was. */
    Rectangle area
    private final ImageData imageData
    private Map<String, List> seen

    /** Takes what is drawn already for answered. */
    Changes(ImageData imageData) {
        this.imageData = imageData
        seen = drawn()
    }

    /** Adds what changed since; false if nothing did. */
    boolean note() {
        def now = drawn()
        def changed = now.findAll { id, one -> !isSame(seen[id], one) }
        changed.each { id, one ->
            def place = areaOfChange(seen[id]?.get(0), one[0])
            area = area?.union(place) ?: place
        }
        seen = now
        int awaited = ids.size()
        ids.addAll(changed.keySet())
        ids.retainAll(now.keySet())
        return changed || ids.size() != awaited
    }

    void clear() {
        ids.clear()
        area = null
    }

    /** How each annotation is drawn, by its id. */
    private Map<String, List> drawn() {
        return imageData.hierarchy.annotationObjects.findAll { it.hasROI() && !isResult(it) }
            .collectEntries { [it.ID.toString(), [it.ROI, it.pathClass]] }
    }

    private static boolean isSame(List before, List now) {
        def (old, recent) = [before?.get(0), now[0]]
        return old != null && before[1] == now[1] &&
            (old.is(recent) || (old.getClass() == recent.getClass() && old.allPoints == recent.allPoints))
    }

    /** The area of the points that were added or taken away, or of what was drawn. */
    private static Rectangle areaOfChange(ROI before, ROI now) {
        if (now.isPoint() && before?.isPoint()) {
            def (old, recent) = [before.allPoints, now.allPoints]
            def points = (recent - old) + (old - recent)
            if (points)
                return boundsOf(ROIs.createPointsROI(points, now.imagePlane))
        }
        return boundsOf(now.isEmpty() && before != null ? before : now)
    }
}
