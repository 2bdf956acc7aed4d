package wsisam

import com.google.gson.JsonObject
import qupath.lib.objects.PathObject

import static wsisam.Drawing.resultOf
import static wsisam.Json.textOf

/** One answer of the server, with QuPath's object for it, which is made before QuPath's thread adds it. */
class Answer {
    final JsonObject feature
    final PathObject result         // null where nothing was found
    final List<Answer> others       // what a click may mean, too; null where that was not asked

    Answer(JsonObject feature) {
        this.feature = feature
        result = feature.get('geometry').isJsonNull() ? null : resultOf(feature)
        others = feature.getAsJsonArray('others')?.collect { new Answer(it) }
    }

    String getId() {
        return textOf(feature, 'id')
    }
}
