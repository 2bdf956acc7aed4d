package wsisam

import java.awt.Rectangle
import qupath.lib.awt.common.AwtTools
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.viewer.QuPathViewer
import qupath.lib.images.ImageData
import qupath.lib.objects.PathObject
import qupath.lib.objects.classes.PathClass
import qupath.lib.objects.hierarchy.PathObjectHierarchy
import qupath.lib.roi.PolygonROI
import qupath.lib.roi.interfaces.ROI

import static wsisam.Json.*

/** What is drawn on an image, and how the server is told of it. */
class Drawing {
    static final String PROMPT_KEY = 'wsisam_prompt_id'
    private static final boolean TELLS_METADATA = PathObject.methods.any { it.name == 'hasMetadata' }    // since 0.6

    static boolean isPoints(PathObject object) {
        return object.isAnnotation() && object.hasROI() && object.ROI.isPoint()
    }

    static boolean isIgnored(PathClass pathClass) {
        return pathClass?.toString()?.endsWith('*')
    }

    static boolean isResult(PathObject object) {
        return metadataOf(object).containsKey(PROMPT_KEY)
    }

    /** Gives the viewer that shows an image; null if none does. */
    static QuPathViewer viewerOf(ImageData imageData) {
        return QuPathGUI.instance?.allViewers?.find { imageData != null && it.imageData === imageData }
    }

    /** Gets the metadata of an object without making a map for each of a million cells that have none. */
    static Map<String, String> metadataOf(PathObject object) {
        return TELLS_METADATA && !object.hasMetadata() ? [:] : object.getMetadata()
    }

    static Map<String, PathObject> objectsById(PathObjectHierarchy hierarchy) {
        return hierarchy.getAllObjects(false).collectEntries { [it.ID.toString(), it] }
    }

    /** Lists the annotations of an image, its results of any type, and one more object. */
    static List<PathObject> drawnOrResults(ImageData imageData, String id = null) {
        return imageData.hierarchy.getAllObjects(false).findAll {
            it.hasROI() && !it.ROI.isEmpty() && (it.isAnnotation() || isResult(it) || it.ID.toString() == id)
        } as List
    }

    /** Converts an object for the server, a polygon with all vertices, of which QuPath's geometry may lack some. */
    static Map featureOf(PathObject object) {
        def feature = JSON.fromJson(GEOJSON.toJson(object, PathObject), Map)
        feature.properties.metadata = metadataOf(object)
        def roi = object.ROI
        if (roi instanceof PolygonROI) {
            def ring = roi.allPoints.collect { [hundredths(it.x), hundredths(it.y)] }
            feature.geometry += [type: 'Polygon', coordinates: [ring + [ring[0]]]]
        }
        return feature
    }

    /** Writes an object as the server is told of it, to see whether it changed since. */
    static String textOf(PathObject object) {
        return JSON.toJson(featureOf(object))
    }

    /** Converts an answer of the server to an object of QuPath. */
    static PathObject resultOf(Map feature) {
        def metadata = feature.properties.metadata
        def plain = feature + [properties: feature.properties.findAll { it.key != 'metadata' }]
        def result = GEOJSON.fromJson(JSON.toJson(plain), PathObject)
        try {
            result.getMetadata().putAll(metadata)
        } catch (UnsupportedOperationException e) {
            // QuPath 0.5.1 keeps metadata of detections, too, but offers no method to set them.
            metadata.each { name, value -> result.storeMetadataValue(name, value) }
        }
        return result
    }

    static double hundredths(double value) {
        return Math.round(value * 100) / 100d
    }

    static Rectangle boundsOf(ROI roi) {
        def bounds = AwtTools.getBounds(roi)
        bounds.grow(1, 1)    // a point has some size, too
        return bounds
    }

    static Rectangle boundsOf(List<PathObject> objects) {
        return objects.collect { boundsOf(it.ROI) }.inject { one, other -> one.union(other) }
    }

    static double pixelSizeOf(ImageData imageData) {
        return imageData.server.pixelCalibration.averagedPixelSizeMicrons
    }
}
