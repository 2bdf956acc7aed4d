"""Reading prompts from GeoJSON: the forms QuPath writes, repairs, and what is refused."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Polygon, mapping

from fixtures.geojson_documents import EVERYWHERE, feature, only, prompts_of, reason, rectangle
from wsisam_qupath.errors import PromptError
from wsisam_qupath.geojson import prompts_from_coordinates, read_prompts
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts import PathClass, Plane, Prompt, PromptSet

# As QuPath 0.6 exports two annotations and a points annotation ("Pretty JSON" off).
QUPATH_EXPORT = """{"type":"FeatureCollection","features":[
{"type":"Feature","id":"0dbd1b4c-6b25-4f44-9b5e-d4a2f6a5d3b1","geometry":{"type":"Polygon",
"coordinates":[[[12288,4096],[12800.5,4096],[12800.5,4608.25],[12288,4608.25],[12288,4096]]]},
"properties":{"objectType":"annotation","name":"gland 1","color":[255, 200, 0],
"classification":{"name":"Tumor","color":[200, 0, 0]},"isLocked":true,
"measurements":{"Area px^2":262400.1},"metadata":{"ANNOTATION_DESCRIPTION":"a note"}}},
{"type":"Feature","id":"5f0f32b0-2a8e-4f1f-8c5e-27a8f5f8f0aa","geometry":{"type":"Polygon",
"coordinates":[[[100.25,100],[180,104.5],[176.75,190],[98,184],[100.25,100]]],
"plane":{"c":-1,"z":2,"t":1},"isEllipse":true},
"properties":{"objectType":"annotation",
"classification":{"names":["Tumor","Positive"],"color":[250, 62, 62]}}},
{"type":"Feature","id":"9b6c1f34-5c02-4d0c-b3b2-4a6f3a2c1d55","geometry":{"type":"MultiPoint",
"coordinates":[[2000.12,3000.5],[2010,3005]]},
"properties":{"objectType":"annotation"}}]}"""


def test_a_qupath_export_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "export.geojson"
    path.write_text("\ufeff" + QUPATH_EXPORT, encoding="utf-8")

    found = read_prompts(path, hr_l0_box_of=lambda _: EVERYWHERE)

    assert found.skipped == ()
    box, outline, points = found.prompts
    assert box == Prompt(
        "0dbd1b4c-6b25-4f44-9b5e-d4a2f6a5d3b1",
        l0_box=Box(12288, 4096, 12800.5, 4608.25),
        path_class=PathClass("Tumor", (200, 0, 0)),
    )
    assert outline.l0_outline is not None
    assert outline.l0_outline.equals(
        Polygon([(100.25, 100), (180, 104.5), (176.75, 190), (98, 184)])
    )
    assert outline.path_class == PathClass("Tumor: Positive", (250, 62, 62))
    assert outline.plane == Plane(-1, 2, 1)
    assert points == Prompt(
        "9b6c1f34-5c02-4d0c-b3b2-4a6f3a2c1d55", l0_positives=((2000.12, 3000.5), (2010.0, 3005.0))
    )


@pytest.mark.parametrize("wrap", ["collection", "list", "feature", "list of a collection"])
def test_each_form_of_the_document_gives_the_same_prompt(wrap: str) -> None:
    one = rectangle(0, 0, 10, 20, id="a")
    document = {
        "collection": {"type": "FeatureCollection", "features": [one]},
        "list": [one],
        "feature": one,
        "list of a collection": [{"type": "FeatureCollection", "features": [one]}],
    }[wrap]

    assert prompts_of(document) == PromptSet((Prompt("a", l0_box=Box(0, 0, 10, 20)),))


def test_a_bare_geometry_is_a_prompt() -> None:
    assert only({"type": "Point", "coordinates": [3, 4]}).l0_positives == ((3, 4),)
    assert only(mapping(Polygon([(0, 0), (5, 0), (0, 5)]))).l0_outline is not None


def test_objects_nested_in_others_are_read_after_them() -> None:
    child = rectangle(1, 1, 5, 5, id="child")
    parent = rectangle(0, 0, 10, 10, id="parent", childObjects=[child])

    assert [p.id for p in prompts_of([parent, rectangle(0, 0, 3, 3, id="last")]).prompts] == [
        "parent",
        "child",
        "last",
    ]


@pytest.mark.parametrize("document", [[], {"type": "FeatureCollection", "features": []}])
def test_an_empty_collection_is_an_empty_set(document: object) -> None:
    assert prompts_of(document) == PromptSet()


def test_areas_of_an_ignored_class_without_a_prompt_near_are_skipped() -> None:
    ignored = rectangle(0, 0, 9, 9, classification={"name": "Ignore*", "color": [1, 2, 3]})

    assert reason([ignored]) == "its class Ignore* says to ignore it, and no prompt is near"


def test_our_own_results_are_no_prompts() -> None:
    earlier = rectangle(0, 0, 9, 9, metadata={"wsisam_prompt_id": "x", "wsisam_base": "b"})

    assert reason([earlier]) == "an earlier result"


@pytest.mark.parametrize(
    ("classification", "path_class"),
    [
        ("Tumor", PathClass("Tumor")),
        ("Tumor:Positive", PathClass("Tumor: Positive")),
        ({"name": "Tumor", "color": [1, 2, 3]}, PathClass("Tumor", (1, 2, 3))),
        ({"name": "Tumor", "color": [1, 2, 3, 4]}, PathClass("Tumor", (1, 2, 3))),
        ({"name": "Tumor", "color": [0, 0, 0]}, PathClass("Tumor", (0, 0, 0))),
        ({"name": "Tumor", "color": [1, 2, 300]}, PathClass("Tumor")),
        ({"name": "Tumor"}, PathClass("Tumor")),
        ({"names": ["Tumor", "1+"], "color": []}, PathClass("Tumor: 1+")),
        ({"name": "Tumor", "colorRGB": -3670016}, PathClass("Tumor", (200, 0, 0))),
        (
            {"name": "Positive", "colorRGB": 255, "parentClass": {"name": "Tumor"}},
            PathClass("Tumor: Positive", (0, 0, 255)),
        ),
        (None, None),
        ("", None),
        (5, None),
        ([], None),
        ({}, None),
        ({"name": 5, "color": [1, 2, 3]}, None),
        ({"names": []}, None),
        ({"names": ["Tumor", None]}, None),
        ("two\nlines", None),
    ],
)
def test_classes_are_read_in_all_forms_of_qupath(
    classification: object, path_class: PathClass | None
) -> None:
    assert only(rectangle(0, 0, 9, 9, classification=classification)).path_class == path_class


@pytest.mark.parametrize(
    ("plane", "expected"),
    [
        ({"c": 1, "z": 2, "t": 3}, Plane(1, 2, 3)),
        ({"z": 4}, Plane(-1, 4, 0)),
        ({"z": "4", "t": True, "c": None}, Plane()),
        (None, Plane()),
        ([1, 2, 3], Plane()),
    ],
)
def test_planes_are_read_and_default_where_they_are_malformed(
    plane: object, expected: Plane
) -> None:
    document = rectangle(0, 0, 9, 9)
    document["geometry"]["plane"] = plane

    assert only(document).plane == expected


@pytest.mark.parametrize("given_id", [None, "", " ", True, ["x"], "PathAnnotationObject"])
def test_missing_ids_are_made_of_geometry_class_and_plane(given_id: object) -> None:
    document = rectangle(0, 0, 9, 9, id=given_id, classification="Tumor")

    made = only(document).id

    assert uuid.UUID(made).version == 5
    assert made == only(rectangle(0, 0, 9.0, 9, classification="Tumor")).id
    assert made != only(rectangle(0, 0, 9, 9)).id
    assert made != only(rectangle(0, 0, 8, 9, classification="Tumor")).id


def test_repeated_ids_are_made_distinct_in_the_same_way_each_time() -> None:
    features = [rectangle(0, 0, n, n, id="a") for n in (4, 5, 6)]

    first = [prompt.id for prompt in prompts_of(features).prompts]

    assert first[0] == "a"
    assert len(set(first)) == 3
    assert first == [prompt.id for prompt in prompts_of(features).prompts]


def test_numbers_are_ids_too_and_half_characters_are_replaced() -> None:
    assert only(rectangle(0, 0, 9, 9, id=7)).id == "7"
    assert only(rectangle(0, 0, 9, 9, id="a\ud800")).id == "a?"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON: Expecting value at line 1, column 1"),
        (b'{"type":\n "FeatureCollection",}', r"line 2, column \d+\."),
        (b"\xff\xfe{\x00}\x00", "is not UTF-8"),
        (b"\x1f\x8b\x08\x00", "is damaged or cut off .* Export it from QuPath again, as .geojson"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"a":' * 200_000, "nested too deep"),
        (b"5", "is not GeoJSON"),
        (b"null", "is not GeoJSON"),
        (b"[1, 2]", "is not GeoJSON"),
        (b'{"type": "Topology"}', "is not GeoJSON"),
        (b'{"type": "FeatureCollection"}', "is not GeoJSON"),
        (b'{"type": ["Feature"]}', "is not GeoJSON"),
    ],
)
def test_a_file_that_is_no_geojson_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.geojson"
    path.write_bytes(content)

    with pytest.raises(PromptError, match=message) as caught:
        read_prompts(path, hr_l0_box_of=lambda _: EVERYWHERE)

    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="There is no file"):
        read_prompts(tmp_path / "none.geojson", hr_l0_box_of=lambda _: EVERYWHERE)
    with pytest.raises(PromptError, match="name a file in it"):
        read_prompts(tmp_path, hr_l0_box_of=lambda _: EVERYWHERE)


def test_odd_numbers_and_deep_coordinates_in_a_file_skip_their_feature(tmp_path: Path) -> None:
    deep = "[" * 500 + "]" * 500
    points = ["[NaN, 1]", "[1, -Infinity]", "[1e999, 1]", f"[{'9' * 5000}, 1]", f"[{deep}, 1]"]
    geometries = [f'{{"type": "Point", "coordinates": {point}}}' for point in [*points, "[1, 2]"]]
    path = tmp_path / "odd.geojson"
    path.write_text(f"[{','.join(geometries)}]", encoding="utf-8")

    found = read_prompts(path, hr_l0_box_of=lambda _: EVERYWHERE)

    assert [prompt.l0_positives for prompt in found.prompts] == [((1, 2),)]
    assert [skipped.id for skipped in found.skipped] == [f"feature {n}" for n in range(1, 6)]


def test_options_make_one_set_under_the_rules_of_a_file() -> None:
    found = prompts_from_coordinates(
        [(10, 20, 0, 0), (100.0, 100.0, 150.0, 140.0)],
        [(5, 5), (300, 300)],
        [(120, 120), (310, 310)],
        hr_l0_box_of=lambda _: EVERYWHERE,
    )

    assert [(p.l0_box, p.l0_positives, p.l0_negatives) for p in found.prompts] == [
        (Box(0, 0, 10, 20), ((5, 5),), ()),
        (Box(100, 100, 150, 140), (), ((120, 120),)),
        (None, ((300, 300),), ((310, 310),)),
    ]
    assert [uuid.UUID(p.id).version for p in found.prompts] == [5, 5, 5]


def test_options_give_the_same_ids_as_floats_and_as_whole_numbers() -> None:
    def ids(box: tuple[float, float, float, float]) -> list[str]:
        found = prompts_from_coordinates([box], hr_l0_box_of=lambda _: EVERYWHERE)
        return [prompt.id for prompt in found.prompts]

    assert ids((0, 0, 10, 20)) == ids((10.0, 20.0, 0.0, 0.0))


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


@given(
    st.sampled_from(["Point", "MultiPoint", "Polygon", "MultiPolygon", "LineString"]),
    json_values | st.lists(st.lists(st.lists(st.floats(), max_size=3), max_size=6), max_size=3),
    json_values,
    json_values,
)
def test_no_value_in_a_feature_breaks_the_reading(
    kind: str, coordinates: object, classification: object, plane: object
) -> None:
    document = feature(kind, coordinates, classification=classification, metadata=plane)
    document["geometry"]["plane"] = plane

    found = prompts_of([document])

    assert len(found.prompts) + len(found.skipped) == 1


@pytest.mark.parametrize("kind", ["cell", "detection", "tile", "tmaCore"])
def test_what_no_person_drew_is_a_prompt_only_where_it_is_asked_for(kind: str) -> None:
    drawn = rectangle(10, 10, 60, 60, objectType="annotation")
    found = rectangle(100, 100, 160, 160, objectType=kind)

    some = prompts_of([drawn, found], drawn_only=True)
    every = prompts_of([drawn, found])

    assert [prompt.l0_box for prompt in some.prompts] == [Box(10, 10, 60, 60)]
    assert len(every.prompts) == 2
    assert "not drawn by a person" in some.skipped[0].reason


def test_what_other_programs_call_a_type_says_nothing() -> None:
    assert len(prompts_of([rectangle(1, 1, 9, 9, type="Nucleus")], drawn_only=True).prompts) == 1


def test_a_part_that_cannot_be_read_costs_itself_alone() -> None:
    square = [[[0, 0], [10, 0], [10, 12], [0, 10]]]
    document = feature("MultiPolygon", [square, [[[5, float("nan")], [6, 6], [7, 5]]]])

    assert only(document).l0_bounds == Box(0, 0, 10, 12)
