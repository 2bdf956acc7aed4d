"""Which annotations are prompts, which are answered, and what is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from shapely.geometry import Point, mapping

from fixtures.command_line import annotation, rectangle
from wsisam_qupath.geojson import Feature, to_feature
from wsisam_qupath.geojson.provenance import describe_question, sign_outline
from wsisam_qupath.geometry import Box
from wsisam_qupath.project.batch.request import Redo
from wsisam_qupath.project.batch.selection import PromptFilter, Selection, select
from wsisam_qupath.project.history import Record, Written
from wsisam_qupath.prompts import PathClass, Plane, Prompt
from wsisam_qupath.prompts.grouping import derive_id
from wsisam_qupath.prompts.results import Provenance, Result
from wsisam_qupath.qupath.values import ImageContents

SLIDE = Box(0, 0, 1000, 1000)
BLOB = Point(150, 150).buffer(30)
TRIANGLE = [[[500, 500], [600, 500], [550, 600], [500, 500]]]


def result_ids_of(prompt: Prompt) -> tuple[str, str]:
    return f"answer to {prompt.id}", f"outdated answer to {prompt.id}"


def chosen(
    annotations: Sequence[Feature],
    prompt_filter: PromptFilter | None = None,
    results: Sequence[Feature] = (),
    record: Record | None = None,
) -> Selection:
    contents = ImageContents(1 + len(annotations), tuple(annotations), tuple(results))
    return select(
        contents,
        record or Record(),
        prompt_filter or PromptFilter(),
        l0_box=SLIDE,
        hr_l0_box_of=lambda _: SLIDE,
        result_ids_of=result_ids_of,
    )


def prompt_ids(selection: Selection) -> list[str]:
    return [task.prompt.id for task in selection.tasks]


def states(selection: Selection) -> dict[str, str]:
    return {row.prompt_id: row.state for row in selection.rows}


def box_prompt(prompt_id: str = "r1") -> Feature:
    return rectangle(prompt_id, (100, 100, 200, 200), "Gland")


def result_of(prompt_id: str, result_id: str, kind: Any = "detection") -> Feature:
    prompt = Prompt(prompt_id, l0_box=Box(1, 1, 2, 2), path_class=PathClass("Gland", (0, 122, 255)))
    provenance = Provenance("lite-medsam", "0" * 64, None, None, 1.0, None, "hr", "0.1.0")
    return to_feature(Result(prompt, result_id, BLOB, 0.9, 0.9, 1.0, provenance), kind)


MIXED = [
    box_prompt(),
    annotation("o1", "Polygon", TRIANGLE, "Gland"),
    annotation("p1", "MultiPoint", [[700, 700], [720, 700]], "Tumor"),
    annotation("n1", "Point", [150, 150], "Ignore*"),
    annotation("region", "Polygon", [[[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]]], "Region*"),
    annotation("line", "LineString", [[0, 0], [10, 10]]),
]


def test_rectangles_and_points_are_prompts_and_other_areas_are_left_alone() -> None:
    selection = chosen(MIXED)

    assert prompt_ids(selection) == ["r1", "p1"]
    assert selection.outlines_left == 1
    assert selection.tasks[0].prompt.l0_negatives == ((150.0, 150.0),)


def test_a_scribble_is_a_prompt_and_a_straight_line_is_left_alone() -> None:
    bent = annotation("s1", "LineString", [[700, 700], [760, 700], [760, 740]], "Gland")

    selection = chosen([bent, *MIXED])

    assert prompt_ids(selection) == ["s1", "r1", "p1"]
    assert len(selection.tasks[0].prompt.l0_positives) == 5


@pytest.mark.parametrize(
    ("prompt_filter", "expected"),
    [
        (PromptFilter(only="rectangles"), ["r1"]),
        (PromptFilter(only="points"), ["p1"]),
        (PromptFilter(only="outlines"), ["o1"]),
        (PromptFilter(frozenset({"Gland"})), ["r1", "o1"]),
        (PromptFilter(frozenset({"Gland"}), only="outlines"), ["o1"]),
        (PromptFilter(frozenset({"Tumor"})), ["p1"]),
        (PromptFilter(frozenset({"Nothing"})), []),
    ],
    ids=str,
)
def test_rules_choose_prompts(prompt_filter: PromptFilter, expected: list[str]) -> None:
    assert prompt_ids(chosen(MIXED, prompt_filter)) == expected


def test_regions_and_ignored_areas_are_not_even_skipped() -> None:
    selection = chosen(MIXED, PromptFilter(only="outlines"))

    assert "region" not in states(selection)


def test_points_of_another_class_are_no_clicks_of_a_chosen_rectangle() -> None:
    nuclei = annotation("n", "MultiPoint", [[120, 120], [130, 130]], "Nucleus")

    (task,) = chosen([box_prompt(), nuclei], PromptFilter(frozenset({"Gland"}))).tasks

    assert task.prompt.l0_positives == ()


def test_each_point_is_a_prompt_below_its_annotation() -> None:
    points = annotation("p1", "MultiPoint", [[700, 700], [720, 700]])

    selection = chosen([points], PromptFilter(points_as="each"))

    assert prompt_ids(selection) == [derive_id("p1", 0), derive_id("p1", 1)]
    assert {task.parent_id for task in selection.tasks} == {"p1"}


def test_the_plane_of_a_prompt_is_kept() -> None:
    drawn_box = box_prompt()
    drawn_box["geometry"]["plane"] = {"c": -1, "z": 3, "t": 1}

    (task,) = chosen([drawn_box]).tasks

    assert task.prompt.plane == Plane(z=3, t=1)


def test_a_class_for_all_results_takes_the_place_of_the_prompts() -> None:
    (task,) = chosen([box_prompt()], PromptFilter(class_name="Benign")).tasks

    assert task.prompt.path_class == PathClass("Benign")


def test_an_answered_prompt_is_not_done_again_unless_asked_for() -> None:
    result = result_of("r1", "answer to r1")

    assert states(chosen([box_prompt()], results=[result])) == {"r1": "answered"}
    (task,) = chosen([box_prompt()], PromptFilter(redo="all"), [result]).tasks
    assert task.replaces == ("answer to r1",)


def test_a_newer_answer_replaces_the_older_one_or_stands_beside_it() -> None:
    older = result_of("r1", "older")

    (replacing,) = chosen([box_prompt()], results=[older]).tasks
    (make_path_beside,) = chosen([box_prompt()], PromptFilter(keep=True), [older]).tasks

    assert (replacing.replaces, make_path_beside.replaces) == (("older",), ())


def test_results_written_as_annotations_are_answers_and_no_prompts() -> None:
    result = result_of("r1", "answer to r1", "annotation")

    wanted = PromptFilter(frozenset({"Gland"}), object_type="annotation")

    selection = chosen([box_prompt(), result], wanted)

    assert prompt_ids(selection) == []
    assert states(selection) == {"r1": "answered"}


@pytest.mark.parametrize("change", [{"isLocked": True}, {"name": "mine"}], ids=str)
@pytest.mark.parametrize("redo", [None, "all", "outdated"])
def test_a_result_that_a_person_touched_is_never_replaced(
    change: dict[str, Any], redo: Redo | None
) -> None:
    result = result_of("r1", "older")
    result["properties"] |= change

    selection = chosen([box_prompt()], PromptFilter(redo=redo), [result])

    assert states(selection) == {"r1": "reviewed"}


def test_a_result_of_a_newer_version_is_never_replaced() -> None:
    result = result_of("r1", "from the future")
    result["properties"]["metadata"]["wsisam_format"] = "3"

    (row,) = chosen([box_prompt()], PromptFilter(redo="all"), [result]).rows

    assert (row.state, row.reason) == (
        "reviewed",
        "a newer version of this program made its result",
    )


def test_a_result_of_version_0_1_is_known_and_replaced() -> None:
    result = result_of("r1", "outdated answer to r1")
    for key in ("wsisam_format", "wsisam_answers", "wsisam_patch"):
        del result["properties"]["metadata"][key]

    plain = chosen([box_prompt()], None, [result])
    (task,) = chosen([box_prompt()], PromptFilter(redo="outdated"), [result]).tasks

    assert [row.is_outdated for row in plain.rows] == [True]
    assert task.replaces == ("outdated answer to r1",)


def test_a_result_turned_into_an_annotation_is_neither_a_prompt_nor_done_again() -> None:
    # QuPath makes a new object: no metadata, another id.
    turned = annotation("new", "Polygon", [list(map(list, BLOB.exterior.coords))], "Gland")
    record = Record((Written("older", "r1", sign_outline(BLOB), "Gland", "detection"),))

    selection = chosen([box_prompt(), turned], PromptFilter(frozenset({"Gland"})), record=record)

    assert prompt_ids(selection) == []
    assert states(selection) == {"r1": "reviewed"}


def test_what_was_empty_is_not_asked_again_unless_asked_for() -> None:
    record = Record(empty={"answer to r1": "the model sees no object there"})

    selection = chosen([box_prompt()], record=record)

    assert states(selection) == {"r1": "empty"}
    assert prompt_ids(chosen([box_prompt()], PromptFilter(redo="all"), record=record)) == ["r1"]


def test_an_outdated_answer_is_counted_and_done_again_when_asked_for() -> None:
    prompts = [box_prompt(), rectangle("r2", (300, 300, 400, 400), "Gland"), box_prompt("r3")]
    results = [result_of("r1", "outdated answer to r1"), result_of("r2", "answer to r2")]
    record = Record(empty={"outdated answer to r3": "nothing"})

    plain = chosen(prompts, None, results, record)
    renewed = chosen(prompts, PromptFilter(redo="outdated"), results, record)
    beside = chosen(prompts, PromptFilter(redo="outdated", keep=True), results, record)

    assert states(plain) == {"r1": "answered", "r2": "answered", "r3": "empty"}
    assert [row.is_outdated for row in plain.rows] == [True, False, True]
    assert prompt_ids(renewed) == prompt_ids(beside) == ["r1", "r3"]
    assert renewed.tasks[0].result_id == "answer to r1"
    assert renewed.tasks[0].replaces == ("outdated answer to r1",)
    assert beside.tasks[0].replaces == ()


@pytest.mark.parametrize(
    ("prompt_filter", "is_replaced"),
    [
        (PromptFilter(), False),
        (PromptFilter(object_type="annotation"), True),
        (PromptFilter(class_name="Gland"), False),
        (PromptFilter(class_name="Gland: Benign"), True),
        (PromptFilter(class_name="Benign", keep=True), False),
    ],
)
def test_another_type_or_class_replaces_the_older_result(
    prompt_filter: PromptFilter, is_replaced: bool
) -> None:
    result = result_of("r1", "answer to r1")

    selection = chosen([box_prompt()], prompt_filter, [result])

    assert [task.replaces for task in selection.tasks] == [("answer to r1",)] * is_replaced
    assert states(selection) == ({} if is_replaced else {"r1": "answered"})


def test_a_prompt_of_another_class_by_now_gets_a_result_of_it() -> None:
    result = result_of("r1", "answer to r1")
    tumor = rectangle("r1", (100, 100, 200, 200), "Tumor")

    (task,) = chosen([tumor], None, [result]).tasks

    assert task.prompt.path_class is not None
    assert (task.prompt.path_class.name, task.replaces) == ("Tumor", ("answer to r1",))


def test_prompts_off_the_slide_are_skipped_by_name() -> None:
    (row,) = chosen([rectangle("far", (5000, 5000, 5100, 5100))]).rows

    assert (row.prompt_id, row.state, row.reason) == (
        "far",
        "skipped",
        "it lies outside of the slide",
    )


def test_an_area_with_the_outline_of_a_result_of_ours_is_none_that_is_left() -> None:
    turned = annotation("new", "Polygon", mapping(BLOB)["coordinates"])
    record = Record((Written("older", "r1", sign_outline(BLOB), None, "detection"),))

    assert chosen([turned], record=record).outlines_left == 0


def test_an_area_of_a_class_to_ignore_is_background_beside_a_prompt_and_not_around_it() -> None:
    beside = annotation("b", "Polygon", [[[180, 100], [400, 100], [400, 200], [180, 200]]], "X*")

    (task,) = chosen([box_prompt(), beside]).tasks

    assert task.prompt.sources == ("r1", "b")
    assert task.prompt.l0_background is not None
    assert task.prompt.l0_background.bounds == (180, 100, 400, 200)
    assert chosen([beside]).rows == ()


def test_what_a_user_chose_among_several_stays_until_its_drawing_changes() -> None:
    (task,) = chosen([box_prompt()]).tasks
    found = result_of("r1", "a candidate")
    found["properties"]["measurements"]["Rank"] = 2
    found["properties"]["metadata"]["wsisam_asked"] = describe_question(task.prompt)

    kept = chosen([box_prompt()], results=[found])
    asked_for = chosen([box_prompt()], PromptFilter(redo="all"), [found])
    larger = chosen([rectangle("r1", (100, 100, 210, 200), "Gland")], results=[found])
    beside = chosen([box_prompt()], PromptFilter(keep=True), [found])

    assert states(kept) == {"r1": "answered"}
    assert [task.replaces for task in asked_for.tasks] == [("a candidate",)]
    assert [task.replaces for task in larger.tasks] == [("a candidate",)]
    assert [task.replaces for task in beside.tasks] == [()]
