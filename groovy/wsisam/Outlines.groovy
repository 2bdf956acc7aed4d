package wsisam

import java.awt.BasicStroke
import java.awt.Color
import java.awt.Graphics2D
import java.awt.Shape
import java.awt.image.BufferedImage
import javafx.animation.PauseTransition
import javafx.util.Duration
import qupath.lib.gui.viewer.QuPathViewer
import qupath.lib.gui.viewer.overlays.AbstractOverlay
import qupath.lib.images.ImageData
import qupath.lib.objects.PathObject
import qupath.lib.objects.hierarchy.PathObjectHierarchy
import qupath.lib.regions.ImageRegion
import qupath.lib.roi.RoiTools

/** Draws results so that nobody overlooks them, at every magnification, and what a click would give. */
class Outlines extends AbstractOverlay {
    private static final int UNCLASSIFIED = 0xffd700, PREVIEW = 0x00e5ff, MOST_FLASHED = 1000, FLASH_SECONDS = 6

    List<PathObject> results = []
    private final Set<String> ids = []      // of all that were ever added, as undo brings them back
    Shape preview
    Closure onPaint

    Outlines(options) { super(options) }

    void add(List<PathObject> added) {
        results += added
        ids.addAll(added*.ID*.toString())
    }

    /** Finds the results again among the copies that undo and redo put in the place of all objects. */
    void follow(PathObjectHierarchy hierarchy) {
        def byId = Drawing.objectsById(hierarchy)
        results = ids.findResults { byId[it] }
    }

    /** Shows results for some seconds, unless they are too many to draw at each repaint. */
    static void flash(QuPathViewer viewer, List<PathObject> results) {
        if (viewer == null || results.size() > MOST_FLASHED)
            return
        def outlines = new Outlines(viewer.overlayOptions)
        outlines.results = results
        viewer.customOverlayLayers.add(outlines)
        def pause = new PauseTransition(Duration.seconds(FLASH_SECONDS))
        pause.setOnFinished { viewer.customOverlayLayers.remove(outlines) }
        pause.play()
    }

    void paintOverlay(Graphics2D g2d, ImageRegion region, double downsample, ImageData<BufferedImage> imageData,
                      boolean isComplete) {
        for (result in results)
            if (result.parent != null && region.intersects(ImageRegion.createInstance(result.ROI)))
                draw(g2d, RoiTools.getShape(result.ROI), result.pathClass?.color ?: UNCLASSIFIED, downsample, 40)
        if (preview != null)
            draw(g2d, preview, PREVIEW, downsample, 25)
        onPaint?.call()
    }

    static void draw(Graphics2D g2d, Shape shape, int rgb, double downsample, int alpha) {
        g2d.setColor(new Color(alpha << 24 | rgb & 0xffffff, true))
        g2d.fill(shape)
        g2d.setColor(new Color(230 << 24 | rgb & 0xffffff, true))
        g2d.setStroke(new BasicStroke((3 * downsample) as float))
        g2d.draw(shape)
    }
}
