/**
 * Exports the annotations of an image as training data, as `wsisam-qupath export` does:
 * a GeoJSON file of objects and regions, and the image's entry in manifest.json.
 *
 * Open this file in QuPath's script editor and choose Run > Run for project, or Run for the open
 * image alone. The folder is `training-export` in that of the project, or the script's argument.
 * For QuPath 0.5.1 to 0.7.0.
 *
 * Objects are areas that you drew or reviewed. Left out are points, lines and rectangles, which are
 * prompts, classes that end in *, and results that nobody has reviewed: turn detections into
 * annotations, and lock those that are right. Areas of class Region* declare where everything is
 * annotated.
 */

import com.google.gson.Gson
import com.google.gson.GsonBuilder
import com.google.gson.JsonArray
import com.google.gson.JsonElement
import com.google.gson.JsonObject
import groovy.transform.Field
import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption
import org.locationtech.jts.geom.Geometry
import org.locationtech.jts.geom.util.GeometryFixer
import qupath.lib.images.servers.ImageServerBuilder.ServerBuilder
import qupath.lib.objects.PathObject
import qupath.lib.roi.GeometryTools

@Field final String MANIFEST = 'manifest.json'
@Field final int SCHEMA_VERSION = 1
@Field final String REGION = 'Region*'
@Field final String UNREVIEWED = 'unreviewed results'
@Field final double SMALLEST_AREA_PX = 1e-4
@Field final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create()

def entry = getProjectEntry()
if (entry == null)
    throw new IOException('This image is not in a project: create one, add the image to it, and run this again.')
checkImage(entry, getCurrentImageData())
def folder = args ? new File(args[0]).toPath() : getProject().getPath().getParent().resolve('training-export')
def images = earlierImages(folder)
def row = describe(entry, getCurrentServer())
def features = choose(getCurrentHierarchy(), row)
Files.createDirectories(folder)
def lines = features.collect { JSON.toJson(it) }.join(',\n')
write(folder.resolve(row.file), '{"type": "FeatureCollection", "features": [\n' + lines + '\n]}\n')
merge(folder, images, row)
println "${row.name} in $folder: objects ${row.objects}, regions ${row.regions}, left out ${row.left_out ?: 0}"

/** Refuses an image if its annotations were lost, or if its coordinates are not those of its file. */
void checkImage(entry, imageData) {
    def name = entry.getImageName()
    def builder = parse(GsonTools.getInstance().toJson(entry.getServerBuilder(), ServerBuilder))
    while (builder.get('builderType')?.getAsString() == 'pyramidize')
        builder = builder.getAsJsonObject('builder')
    if (builder.get('builderType')?.getAsString() != 'uri')
        throw new IOException("$name is shown cropped, rotated or otherwise changed: add the unchanged slide to the project, and use that image.")
    if (!imageData.getServer().isRGB())
        throw new IOException("$name is not RGB: only brightfield images can be segmented. Leave it out.")
    // QuPath reads a damaged file as an image without objects.
    def summary = entry.getEntryPath().resolve('summary.json')
    def hierarchy = Files.isRegularFile(summary) ? parse(Files.readString(summary)).getAsJsonObject('hierarchy') : null
    def stated = hierarchy?.get('nObjects')?.getAsInt() ?: 1
    if (stated > 1 && imageData.getHierarchy().isEmpty() && !imageData.isChanged())
        throw new IOException("$name was saved with objects (${stated - 1}) and now reads as empty: put back a copy of its data.qpdata.")
}

/** Reads the manifest's rows of earlier runs, by image ids. */
Map<String, JsonObject> earlierImages(Path folder) {
    def manifest = folder.resolve(MANIFEST)
    if (!Files.exists(manifest)) {
        if (folder.toFile().list())
            throw new IOException("$folder has other files and is not an earlier export: choose another folder.")
        return [:]
    }
    def document = parse(Files.readString(manifest))
    if (document.get('schema_version')?.getAsInt() != SCHEMA_VERSION)
        throw new IOException("$manifest was not written by this version of the script: choose another folder.")
    return document.getAsJsonArray('images').collectEntries { [it.get('id').getAsString(), it] }
}

/** Makes the manifest's row of an image, without its objects. */
Map describe(entry, server) {
    def calibration = server.getPixelCalibration()
    def isKnown = calibration.hasPixelSizeMicrons()
    return [
        id: entry.getID(),
        name: entry.getOriginalImageName(),
        file: fileNames().get(entry.getID()),
        uri: server.getURIs().find()?.toString() ?: '',
        width: server.getWidth(),
        height: server.getHeight(),
        mpp_x: isKnown ? calibration.getPixelWidthMicrons() : null,
        mpp_y: isKnown ? calibration.getPixelHeightMicrons() : null,
    ]
}

/** Converts objects and regions to GeoJSON, and counts them and those left out in the row. */
List<JsonObject> choose(hierarchy, Map row) {
    def features = []
    def classes = new TreeMap<String, Integer>(), leftOut = new TreeMap<String, Integer>()
    row << [classes: classes, objects: 0, regions: 0, left_out: leftOut]
    for (annotation in hierarchy.getAllObjects(false).findAll { it.isAnnotation() && it.hasROI() }) {
        def geometry = outlineOf(annotation)
        def reason = reasonAgainst(annotation, geometry)
        if (reason) {
            leftOut.merge(reason, 1, Integer::sum)
            continue
        }
        features << featureOf(annotation, geometry)
        if (classOf(annotation) == REGION) {
            row.regions++
        } else {
            row.objects++
            classes.merge(classOf(annotation) ?: 'Unclassified', 1, Integer::sum)
        }
    }
    int results = hierarchy.getDetectionObjects().count { metadataOf(it).containsKey('wsisam_prompt_id') }
    if (results)
        leftOut.merge(UNREVIEWED, results, Integer::sum)
    return features
}

/** Gives the reason why an annotation is not ground truth; null if it is. */
String reasonAgainst(PathObject annotation, Geometry geometry) {
    def roi = annotation.getROI()
    if (roi.isPoint())
        return 'points'
    if (roi.isLine())
        return 'lines'
    if (geometry.getArea() < SMALLEST_AREA_PX)
        return 'without area'
    if (classOf(annotation) == REGION)
        return null
    if (classOf(annotation)?.endsWith('*'))
        return 'class ends in *'
    if (geometry.isRectangle())
        return 'rectangles, which are prompts'
    return isUntouched(annotation, geometry) ? UNREVIEWED : null
}

/** Tells whether an object is an unmodified result: not locked, named or edited by a user. */
boolean isUntouched(PathObject annotation, Geometry geometry) {
    def metadata = metadataOf(annotation)
    return metadata.containsKey('wsisam_prompt_id') &&
        !annotation.isLocked() && !annotation.getName() &&
        classOf(annotation) == metadata.get('wsisam_class') &&
        metadata.get('wsisam_type') == 'annotation' &&
        isDrawn(geometry, metadata.get('wsisam_drawn') ?: '')
}

/** Tells whether an outline has the bounds, area and length of a signature, except for rounding. */
boolean isDrawn(Geometry geometry, String signature) {
    def numbers = signature.split(' ').findAll { it.isDouble() }.collect { it.toDouble() }
    if (numbers.size() != 6)
        return false
    def bounds = numbers[0..3]
    double area = numbers[4], length = numbers[5]
    double tolerance = 0.02 + Math.scalb(1d, -23) * bounds.collect { Math.abs(it) }.max()
    def box = geometry.getEnvelopeInternal()
    def found = [box.getMinX(), box.getMinY(), box.getMaxX(), box.getMaxY()]
    return [found, bounds].transpose().every { a, b -> Math.abs(a - b) <= tolerance } &&
        [geometry.getArea() - area, geometry.getLength() - length].every { Math.abs(it) <= tolerance * Math.max(length, 1d) }
}

/** Gives the valid outline of an annotation. */
Geometry outlineOf(PathObject annotation) {
    def geometry = annotation.getROI().getGeometry()
    return geometry.isValid() ? geometry : GeometryTools.ensurePolygonal(GeometryFixer.fix(geometry))
}

/** Converts an annotation as QuPath does, reduced to what training reads. */
JsonObject featureOf(PathObject annotation, Geometry geometry) {
    def gson = GsonTools.getInstance()
    def written = parse(gson.toJson(annotation))
    def outline = parse(gson.toJson(geometry))
    if (written.getAsJsonObject('geometry').has('plane'))
        outline.add('plane', written.getAsJsonObject('geometry').get('plane'))
    def properties = new JsonObject()
    for (key in ['objectType', 'name', 'isLocked', 'classification'])
        if (written.getAsJsonObject('properties').has(key))
            properties.add(key, written.getAsJsonObject('properties').get(key))
    def feature = new JsonObject()
    feature.addProperty('type', 'Feature')
    feature.add('id', written.get('id'))
    feature.add('geometry', outline)
    feature.add('properties', properties)
    return feature
}

String classOf(PathObject pathObject) {
    return pathObject.getPathClass()?.toString()
}

/** Gets the metadata of an object without making a map for each of a million cells that have none. */
Map<String, String> metadataOf(PathObject pathObject) {
    if (pathObject.metaClass.respondsTo(pathObject, 'hasMetadata') && !pathObject.hasMetadata())
        return [:]
    return pathObject.getMetadata()
}

/** Makes file names by entry id: valid on every system, and distinct even if case is ignored. */
Map<String, String> fileNames() {
    def stems = getProject().getImageList().collectEntries { [it.getID(), stemOf(it.getOriginalImageName())] }
    def counts = stems.values().countBy { it.toLowerCase(Locale.ROOT) }
    def taken = counts.findAll { it.value == 1 }.keySet() as HashSet
    return stems.collectEntries { id, stem ->
        def name = stem
        if (counts.get(stem.toLowerCase(Locale.ROOT)) > 1) {
            name = stem + ' (' + id + ')'
            while (!taken.add(name.toLowerCase(Locale.ROOT)))
                name += '_'
        }
        [id, name + '.geojson']
    }
}

String stemOf(String name) {
    def safe = name.replaceAll('[<>:"/\\\\|?*\\x00-\\x1f\\x7f]', '_')
    safe = safe.substring(0, safe.offsetByCodePoints(0, Math.min(100, safe.codePointCount(0, safe.length()))))
    def stem = safe.replaceAll('^[ .]+|[ .]+$', '') ?: 'image'
    return stem ==~ /(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?/ ? '_' + stem : stem
}

/** Puts the image's row into the manifest; removes rows of images no longer in the project. */
void merge(Path folder, Map<String, JsonObject> images, Map row) {
    def files = images.values().collect { it.get('file').getAsString() }
    images.put(row.id, JSON.toJsonTree(row))
    def rows = new JsonArray()
    getProject().getImageList().collect { images.get(it.getID()) }.findAll().each { rows.add(it) }
    def document = new JsonObject()
    document.addProperty('schema_version', SCHEMA_VERSION)
    document.add('images', rows)
    write(folder.resolve(MANIFEST), JSON.newBuilder().setPrettyPrinting().create().toJson(document) + '\n')
    def kept = rows.collect { it.get('file').getAsString() } as Set
    files.findAll { !(it in kept) && it == new File(it).getName() }.each { Files.deleteIfExists(folder.resolve(it)) }
}

/** Writes a file completely or not at all. */
void write(Path path, String text) {
    def unfinished = path.resolveSibling('.' + path.getFileName() + '.tmp')
    Files.writeString(unfinished, text, StandardCharsets.UTF_8)
    Files.move(unfinished, path, StandardCopyOption.REPLACE_EXISTING)
}

JsonObject parse(String text) {
    return new Gson().fromJson(text, JsonObject)
}
