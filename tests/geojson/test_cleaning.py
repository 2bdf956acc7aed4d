"""GeoJSON from anywhere, in the form that QuPath reads."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import shape

from wsisam_qupath.errors import PromptError
from wsisam_qupath.geojson.cleaning import clean_objects, iterate_features, read_objects

RING = [[0, 0], [40, 0], [40, 40], [0, 40], [0, 0]]
BOW_TIE = [[0, 0], [40, 40], [40, 0], [0, 40], [0, 0]]
ID = "1b4e28ba-2fa1-51d2-883f-0016d3cca427"


def feature(coordinates: Any = None, **other: Any) -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": coordinates or [RING]}
    return {"type": "Feature", "geometry": geometry, "properties": {}, **other}


def cleaned(*features: Any) -> list[dict[str, Any]]:
    return list(clean_objects(list(features)).features)


def test_properties_of_null_become_an_annotation_without_any() -> None:
    (found,) = cleaned(feature(properties=None))

    assert found["properties"] == {"objectType": "annotation"}


def test_a_class_without_a_colour_becomes_a_plain_string() -> None:
    (found,) = cleaned(feature(properties={"classification": {"name": "Gland"}}))

    assert found["properties"]["classification"] == "Gland"


def test_a_class_with_a_colour_keeps_it() -> None:
    given = {"names": ["Tumor", "Positive"], "color": [200, 0, 0]}

    (found,) = cleaned(feature(properties={"classification": given}))

    assert found["properties"]["classification"] == given


def test_an_outline_that_crosses_itself_is_made_valid_and_counted() -> None:
    found = clean_objects([feature([BOW_TIE]), feature()])

    assert found.repaired == 1
    assert shape(found.features[0]["geometry"]).is_valid


def test_a_uuid_stays_and_another_id_becomes_one_that_is_always_the_same() -> None:
    kept, named, numbered = (one["id"] for one in cleaned(
        feature(id=ID), feature(id="gland 3"), feature(id=3)
    ))  # fmt: skip
    again = cleaned(feature(id="gland 3"))[0]["id"]

    assert kept == ID
    assert named == again == str(uuid.UUID(named))
    assert len({kept, named, numbered}) == 3


def test_features_without_an_id_get_one_of_their_content() -> None:
    first, second = (cleaned(feature(c))[0]["id"] for c in ([RING], [BOW_TIE]))

    assert first != second
    assert first == cleaned(feature([RING]))[0]["id"]


def test_one_id_for_two_features_becomes_two() -> None:
    a, b = cleaned(feature(id=ID), feature([BOW_TIE], id=ID))

    assert a["id"] == ID
    assert b["id"] != ID


def test_name_lock_colour_measurements_and_metadata_are_kept() -> None:
    properties = {
        "objectType": "detection",
        "name": "The third",
        "color": [1, 2, 3],
        "isLocked": True,
        "measurements": {"Area": 3, "Bad": None, "Infinite": float("inf")},
        "metadata": {"key": "value", "number": 3},
    }

    (found,) = cleaned(feature(properties=properties))

    assert found["properties"] == {
        "objectType": "detection",
        "name": "The third",
        "color": [1, 2, 3],
        "isLocked": True,
        "measurements": {"Area": 3.0},
        "metadata": {"key": "value"},
    }


def test_nulls_that_qupath_throws_at_are_left_out() -> None:
    keys = ("name", "color", "classification", "isLocked", "measurements", "metadata")

    (found,) = cleaned(feature(properties=dict.fromkeys(keys)))

    assert found["properties"] == {"objectType": "annotation"}


@pytest.mark.parametrize("kind", ["Polygon", "Point", "MultiPoint", "LineString"])
def test_planes_are_kept(kind: str) -> None:
    coordinates = {"Polygon": [RING], "Point": [3, 4]}.get(kind, [[3, 4], [5, 6]])
    plane = {"c": -1, "z": 2, "t": 1}
    geometry = {"type": kind, "coordinates": coordinates, "plane": plane}

    (found,) = cleaned(feature(geometry=geometry))

    assert found["geometry"]["type"] == kind
    assert found["geometry"]["plane"] == plane


def test_an_ellipse_stays_one() -> None:
    geometry = {"type": "Polygon", "coordinates": [RING], "isEllipse": True}

    assert cleaned(feature(geometry=geometry))[0]["geometry"]["isEllipse"] is True


@pytest.mark.parametrize("key", ["childObjects", "children"])
def test_children_stay_below_their_parents(key: str) -> None:
    child = feature(id="child", properties=None)
    parent = feature(id=ID, properties={key: [child]})

    (found,) = cleaned(parent)

    assert len(found["properties"]["childObjects"]) == 1
    assert clean_objects([parent]).n_objects == 2


def test_children_of_what_cannot_be_used_move_up() -> None:
    core = feature(properties={"objectType": "tmaCore", "childObjects": [feature(id=ID)]})
    root = {"type": "Feature", "properties": {"objectType": "root", "childObjects": [feature()]}}

    found = clean_objects([core, root])

    assert found.features[0]["id"] == ID
    assert [one.reason for one in found.skipped] == ["objects of type tmaCore are not imported"]
    assert found.n_objects == 2


def test_a_hundred_levels_are_enough() -> None:
    nested = feature()
    for _ in range(150):
        nested = feature(properties={"childObjects": [nested]})

    found = clean_objects([nested])

    assert found.n_objects == 101
    assert [one.reason for one in found.skipped] == ["its children are nested too deep"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("nonsense", "it is not a feature"),
        (feature(geometry=None), "it has no geometry"),
        (feature([[[0, 0], [9, 9]]]), "it has no area"),
        (feature([[[0, 0], [9, "9"], [3, 0]]]), "its coordinates are not all numbers"),
        (feature(geometry={"type": "GeometryCollection", "geometries": []}),
         "QuPath has no objects of geometry GeometryCollection"),
        (feature(geometry={"type": "LineString", "coordinates": [[0, 0]]}),
         "its coordinates are not those of a line"),
        (feature(geometry={"type": "LineString", "coordinates": []}),
         "its coordinates are empty, not finite, or lie beyond any slide"),
    ],
)  # fmt: skip
def test_what_no_object_can_be_made_of_is_named(value: Any, reason: str) -> None:
    found = clean_objects([feature(), value])

    assert found.n_objects == 1
    assert [(one.id, one.reason) for one in found.skipped] == [("feature 2", reason)]


def test_a_class_that_cannot_be_read_is_named_and_the_object_kept() -> None:
    found = clean_objects([feature(properties={"classification": {"name": "two\nlines"}})])

    assert found.n_objects == 1
    assert [one.reason for one in found.skipped] == ["its class cannot be read; it has none now"]


def test_classes_are_told_in_the_order_of_their_first_use() -> None:
    child = feature(properties={"classification": "B"})
    features = [
        feature(properties={"classification": "C", "childObjects": [child]}),
        feature(properties={"classification": {"name": "A", "color": [1, 2, 3]}}),
        feature(properties={"classification": "C"}),
    ]

    assert [one.name for one in clean_objects(features).path_classes] == ["C", "B", "A"]


def test_old_types_and_forms_are_understood() -> None:
    legacy = feature(id="PathDetectionObject", properties={
        "classification": {"name": "Tumor", "colorRGB": -3670016},
        "measurements": [{"name": "Area", "value": 3.5}],
    })  # fmt: skip

    (found,) = cleaned(legacy)

    assert found["properties"] == {
        "objectType": "detection",
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
        "measurements": {"Area": 3.5},
    }


def test_a_cell_keeps_its_nucleus_and_survives_a_bad_one() -> None:
    nucleus = {"type": "Polygon", "coordinates": [[[10, 10], [20, 10], [20, 20], [10, 10]]]}
    cell = {"objectType": "cell"}

    good, bad = cleaned(
        feature(properties=cell, nucleusGeometry=nucleus),
        feature(properties=cell, nucleusGeometry={"type": "Polygon", "coordinates": []}),
    )

    assert shape(good["nucleusGeometry"]).area == 50
    assert "nucleusGeometry" not in bad


def test_an_empty_collection_holds_nothing_and_is_right() -> None:
    assert not list(
        iterate_features(clean_objects({"type": "FeatureCollection", "features": []}).features)
    )


@pytest.mark.parametrize("content", [b"{}", b"3", b'[{"a": 1}]', b"{", b"\xff"])
def test_what_is_no_geojson_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.geojson"
    path.write_bytes(content)

    with pytest.raises(PromptError, match=r"x\.geojson is not .*Export it from QuPath again"):
        read_objects(path)


def test_lists_however_deep_are_looked_through_without_recursion() -> None:
    nested: object = []
    for _ in range(100_000):
        nested = [nested]
    feature = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}

    with pytest.raises(PromptError, match="holds no features"):
        clean_objects(nested)
    assert len(clean_objects([feature, nested]).features) == 1
