package wsisam

import qupath.lib.objects.PathObject

import static wsisam.Drawing.resultOf

/** One answer of the server, with QuPath's object for it, which is made before QuPath's thread adds it. */
class Answer {
    final Map feature
    final PathObject result         // null where nothing was found
    final List<Answer> others       // what a click may mean, too; null where that was not asked

    Answer(Map feature) {
        this.feature = feature
        result = feature.geometry == null ? null : resultOf(feature)
        others = feature.others?.collect { new Answer(it) }
    }

    String getId() {
        return feature.id
    }
}
