package wsisam

import java.awt.Color
import java.awt.Rectangle
import java.awt.image.BufferedImage
import javax.imageio.ImageIO
import qupath.fx.dialogs.Dialogs
import qupath.lib.images.ImageData
import qupath.lib.images.servers.*
import qupath.lib.images.servers.ImageServerBuilder.ServerBuilder
import qupath.lib.objects.PathObject
import qupath.lib.regions.*
import qupath.lib.roi.RectangleROI

import static wsisam.Drawing.*
import static wsisam.Json.*

/** Sends the server what is drawn on an image, and pixels where it needs them; the answers arrive in the request. */
class Exchange {
    private static final double REACH_UM = 500
    private static final int PROMPTS_WITH_PIXELS = 8

    Server server
    Settings settings

    /** Collects what is drawn: rectangles, points, what is asked for, and results, of the area if there is one. */
    void gather(Request request, Rectangle area = null) {
        def ids = request.select.ids ?: []
        def isNear = { area == null || area.intersects(boundsOf(it.ROI)) }
        def (results, others) = drawnOrResults(request.imageData, request.refinedId).split { isResult(it) }
        results = results.findAll { metadataOf(it)[PROMPT_KEY] in ids || isNear(it) }
        def named = results.collect { metadataOf(it)[PROMPT_KEY] } + ids + request.refinedId as Set
        def drawn = others.findAll {
            def isMark = !it.ROI.isArea() || it.ROI instanceof RectangleROI || isIgnored(it.pathClass)
            it.ID.toString() in named || (isMark && isNear(it))
        }
        for (plane in (results + drawn).groupBy { [it.ROI.z, it.ROI.t] }.values()) {
            def features = plane.collect { featureOf(it) }
            plane.eachWithIndex { object, n -> request.sent[object.ID.toString()] = JSON.toJson(features[n]) }
            if (request.refinedId == null || plane.any { it.ID.toString() == request.refinedId })
                request.planes << [plane: plane[0].ROI.imagePlane, objects: plane, features: features]
        }
        request.total = ids.size() ?: drawn.size()
    }

    /** Requests the outlines on each plane. */
    void segment(Request request) {
        def ids = request.select.ids
        for (drawn in request.planes) {
            def asked = drawn.objects.findAll { ids == null ? !isResult(it) : it.ID.toString() in ids }
            partsOf(request, drawn, asked).each { outline(request, it, it.select) }
        }
    }

    /** Requests the outline that a click would give. */
    void prepare(Request request, ImagePlane plane, Map feature) {
        outline(request, [plane: plane, features: [feature]], null, null, '/v1/prepare')
    }

    /** Searches a slide that the server can read. */
    void find(Request request, ImagePlane plane, Map wanted) {
        def problem = post(request, '/v1/find', plane, wanted)
        if (problem != null)
            throw new ServerException(Server.nameOf(problem) != 'slide-outside' ? Server.messageOf(problem) :
                'To find objects, the server has to read the slide itself, which it cannot: its file is elsewhere, ' +
                'or the image is rotated, cropped or another plane of a stack.')
    }

    /** How far around a change it matters what is drawn, px. */
    static int reachPx(ImageData imageData) {
        return REACH_UM / (pixelSizeOf(imageData) ?: 1)
    }

    /**
     * Splits what is too much for one request by its place: with each part all is sent that lies near. The parts of
     * everything name what is asked, but do not ask for it again.
     */
    private List<Map> partsOf(Request request, Map drawn, List<PathObject> asked, Map select = request.select,
                              int reach = reachPx(request.imageData)) {
        def limits = server.limits(request)
        def isSmall = { it.size() <= limits.prompts && it.sum { it.ROI.numPoints } <= limits.vertices / 2 }
        if (request.refinedId || reach == 0 || isSmall(drawn.objects))
            return [drawn + [select: select]]
        def area = boundsOf(asked)
        def isFew = asked.size() <= Math.max(1, limits.prompts.intdiv(8))
        def sorted = asked.sort(false) { area.width > area.height ? it.ROI.centroidX : it.ROI.centroidY }
        return (isFew ? [sorted] : sorted.collate(sorted.size() - sorted.size().intdiv(2))).collectMany { part ->
            def around = boundsOf(part)
            around.grow(reach, reach)
            def near = drawn.objects.findIndexValues { around.intersects(boundsOf(it.ROI)) }
            def those = drawn + [objects: drawn.objects[near], features: drawn.features[near]]
            def some = select + [ids: part*.ID*.toString(), again: request.select.ids != null]
            partsOf(request, those, part, some, isFew ? reach.intdiv(4) : reach)
        }
    }

    /** Requests outlines of one plane, and again with pixels where the server cannot read the slide. */
    private void outline(
            Request request, Map drawn, Map select, List<Map> regions = null, String path = '/v1/segment') {
        def problem = post(request, path, drawn.plane, [
            prompts: drawn.features, select: select, regions: regions, on_unreadable: 'regions',
            refine: request.refinedId ? readJson(request.sent[request.refinedId]) : null])
        if (problem == null)
            return
        if (regions != null || Server.nameOf(problem) != 'pixels-needed')
            throw new ServerException(Server.messageOf(problem))
        if (problem.prompts.size() > PROMPTS_WITH_PIXELS) {
            for (some in problem.prompts.collate(PROMPTS_WITH_PIXELS))
                outline(request, drawn, select + [ids: some, area: null], null, path)
            return
        }
        logger.info('The server cannot read this slide, so its pixels are sent')
        def image = request.imageData.server
        def read = problem.regions.collect { readRegion(image, it, drawn.plane) }
        outline(request, drawn, select, read, path)
    }

    /** Sends a request about an image, and reads the answers or returns the problem. */
    private Map post(Request request, String path, ImagePlane plane, Map document) {
        def response = server.send(request, 'POST', path, document + [
            slide: slideOf(request.imageData.server, plane),
            options: request.options.findAll { it.key != 'adapter' },
            adapter: request.options.adapter ?: settings['Model'] ?: null])
        if (response.statusCode() in [200, 204]) {
            server.eachRecord(response) { take(request, it) }
            return null
        }
        def problem = server.problemOf(response)
        if (Server.nameOf(problem) == 'not-found')
            throw new ServerException(Server.strangerAt(response))
        return problem
    }

    /** Takes a feature, a collection of them, or the problem that ends an answer. */
    private static void take(Request request, Map record) {
        if (record.status)
            throw new ServerException(Server.messageOf(record))
        def features = record.containsKey('features') ? record.features : [record]
        request.arrive(features.collect { new Answer(it) })
    }

    /** Describes the slide as QuPath shows it. If no file shows the same, it gets a name that no server can open. */
    static Map slideOf(ImageServer server, ImagePlane plane) {
        def calibration = server.pixelCalibration
        def isPlain = isPlainFile(server) && plane.z == 0 && plane.t == 0
        return [
            uri: isPlain ? server.URIs[0].toString() : 'qupath:pixels',
            width: server.width, height: server.height,
            mpp_x: calibration.pixelWidthMicrons, mpp_y: calibration.pixelHeightMicrons,
            downsamples: server.preferredDownsamples.toList().findAll { it >= 1 }]
    }

    /** Tells whether QuPath shows the slide as in its file: not rotated, cropped or otherwise changed. */
    private static boolean isPlainFile(ImageServer server) {
        if (server.URIs.size() != 1 || server.builder == null)
            return false
        def builder = readJson(GEOJSON.toJson(server.builder, ServerBuilder))
        while (builder.builderType == 'pyramidize')
            builder = builder.builder
        return builder.builderType == 'uri'
    }

    /** Reads a region at the resolution that the server asks for, or a finer one. */
    private static Map readRegion(ImageServer server, Map needed, ImagePlane plane) {
        def (x, y, width, height) = ['x', 'y', 'width', 'height'].collect { needed[it] as int }
        double downsample = Math.min(width / needed.width_px, height / needed.height_px)
        def image = server.readRegion(RegionRequest.createInstance(
            server.path, Math.max(1d, downsample), x, y, width, height, plane.z, plane.t))
        def rgb = new BufferedImage(image.width, image.height, BufferedImage.TYPE_INT_RGB)
        def graphics = rgb.createGraphics()
        graphics.drawImage(image, 0, 0, Color.WHITE, null)
        graphics.dispose()
        def bytes = new ByteArrayOutputStream()
        ImageIO.write(rgb, 'PNG', bytes)
        return [x: x, y: y, width: width, height: height, image: bytes.toByteArray().encodeBase64().toString()]
    }

    /** What keeps an image from being segmented; null if nothing does. */
    static String pixelTrouble(ImageData imageData) {
        if (!imageData.server.isRGB())
            return 'This image is not RGB: only brightfield images can be segmented.'
        return imageData.server.pixelCalibration.hasPixelSizeMicrons() ? null :
            'This image has no pixel size: double-click Pixel width in QuPath\'s Image tab and enter it.'
    }

    /** Asks once for the pixel size of an image that has none, and sets it in the image. */
    static boolean askPixelSize(ImageData imageData) {
        def server = imageData.server
        if (server.isRGB() && !server.pixelCalibration.hasPixelSizeMicrons()) {
            def size = Dialogs.showInputDialog(Say.TITLE, 'This image has no pixel size. How wide is one pixel, in ' +
                'µm?\n(0.25 for a scan at 40x, 0.5 at 20x.) The image keeps this pixel size.', 0.5d)
            if (size > 0.01 && size < 100)
                imageData.updateServerMetadata(
                    new ImageServerMetadata.Builder(server.getMetadata()).pixelSizeMicrons(size, size).build())
        }
        def trouble = pixelTrouble(imageData)
        if (trouble)
            Say.inform(trouble)
        return trouble == null
    }
}
