package wsisam

import com.google.gson.*
import org.slf4j.*
import qupath.lib.io.GsonTools

/** Reads and writes JSON. */
class Json {
    static final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping()
        .serializeSpecialFloatingPointValues().setObjectToNumberStrategy(ToNumberPolicy.LONG_OR_DOUBLE).create()
    static final Gson GEOJSON = GsonTools.instance
    static final Logger logger = LoggerFactory.getLogger('wsi-sam')

    /** Reads an object; null if the text is none. */
    static Map readJson(String text) {
        try {
            return JSON.fromJson(text, Map)
        } catch (JsonParseException e) {
            logger.debug(e.message, e)
            return null
        }
    }

    static Map readJson(File file) {
        try {
            return file.isFile() ? readJson(file.getText('UTF-8')) : null
        } catch (IOException e) {
            logger.debug("$file: ${e.message}", e)
            return null
        }
    }
}
