package wsisam

import com.google.gson.*
import org.slf4j.*
import qupath.lib.io.GsonTools

/** Reads and writes JSON. A member that is missing, or of another type, is null, 0 or empty. */
class Json {
    static final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create()
    static final Gson GEOJSON = GsonTools.instance
    static final Logger logger = LoggerFactory.getLogger('wsi-sam')

    /** Reads an object; null if the text is none. */
    static JsonObject readJson(String text) {
        try {
            return JSON.fromJson(text, JsonObject)
        } catch (JsonParseException e) {
            logger.debug(e.message, e)
            return null
        }
    }

    static JsonObject readJson(File file) {
        try {
            return file.isFile() ? readJson(file.getText('UTF-8')) : null
        } catch (IOException e) {
            logger.debug("$file: ${e.message}", e)
            return null
        }
    }

    static String textOf(JsonObject object, String name) {
        return object?.get(name)?.isJsonPrimitive() ? object.get(name).asString : null
    }

    static int countOf(JsonObject object, String name) {
        return object?.get(name)?.isJsonPrimitive() ? object.get(name).asInt : 0
    }

    static List<String> textsOf(JsonObject object, String name) {
        return object?.get(name)?.isJsonArray() ? object.getAsJsonArray(name).collect { it.asString } : []
    }
}
