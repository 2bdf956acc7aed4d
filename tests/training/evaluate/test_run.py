"""Whole evaluations: fields and models in; scores, tables, JSON and pictures out."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from PIL import Image
from rich.console import Console

from fixtures.evaluate_models import SQUARE, TALL, OutlineModel, make_image
from wsisam_qupath.errors import OptionError, PromptError
from wsisam_qupath.geometry import Box
from wsisam_qupath.inference.backends import Prediction
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.model.shipped import find_shipped_adapter
from wsisam_qupath.options import DEFAULT_BASE, ModelSpec
from wsisam_qupath.prompts.encoding import EncodedPrompt
from wsisam_qupath.slide import SlideReference
from wsisam_qupath_training.dataset import AnnotatedImage, Dataset, Truth
from wsisam_qupath_training.evaluate.boxes import box_iou, match_boxes, read_boxes
from wsisam_qupath_training.evaluate.choosing import (
    SelectedObjects,
    limit_objects,
    put_slide_classes,
    select_part,
)
from wsisam_qupath_training.evaluate.command import EvaluateRequest, Evaluation, run_evaluate
from wsisam_qupath_training.evaluate.models import Model, PredictorModel, load_model, parse_spec
from wsisam_qupath_training.evaluate.outline_fit import NOTHING, measure_fit
from wsisam_qupath_training.evaluate.protocol import GIVEN_BOX, LABELS, ProtocolSettings
from wsisam_qupath_training.evaluate.results import (
    BASELINES,
    PROMPTED_BOX,
    WHOLE_PATCH,
    EvaluationResults,
    Score,
)
from wsisam_qupath_training.evaluate.run import evaluate_models
from wsisam_qupath_training.evaluate.summary import correlations, iou_by_click, seconds, summarize

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)
TRUTH_MODEL = "fixtures.evaluate_models:truth_model"


def asked(images: Sequence[AnnotatedImage], *models: Model, **settings: Any) -> EvaluationResults:
    chosen = [SelectedObjects(image, image.truths) for image in images]
    return evaluate_models(chosen, models, ProtocolSettings(**settings), QUIET)


def scores_of_models(found: EvaluationResults) -> list[Score]:
    return [score for score in found.scores if score.model not in BASELINES]


def truth_model(name: str = "truth", **changes: Any) -> OutlineModel:
    return OutlineModel(name, (SQUARE, TALL), **changes)


def upper_half(outline: shapely.Polygon) -> shapely.Polygon:
    x0, y0, x1, y1 = outline.bounds
    return shapely.box(x0, y0, x1, (y0 + y1) / 2)


def test_a_model_that_knows_the_truth_has_dice_1_for_every_prompt_and_needs_one_click(
    tmp_path: Path,
) -> None:
    found = asked([make_image(tmp_path)], truth_model(), scale="truth")

    dice = {(s.object_key.object_id, s.label): s.fit.dice for s in scores_of_models(found)}
    labels = [label for label in LABELS if label != GIVEN_BOX]
    assert set(dice) == {(number, label) for number in ("1", "2") for label in labels}
    # The tall one is answered at 1.41 µm/px, where its edges lie within pixels.
    assert all(dice["1", label] > 0.995 for label in labels)
    assert all(dice["2", label] > 0.98 for label in labels)
    assert [c.run.clicks_to(0.9) for c in found.clicks] == [1, 1]


def test_a_model_that_finds_half_has_dice_two_thirds_and_fails(tmp_path: Path) -> None:
    image = make_image(tmp_path, outlines=[SQUARE], class_names=["gland"])

    found = asked([image], truth_model(change=upper_half))

    assert {round(s.fit.dice, 3) for s in scores_of_models(found)} == {0.667}
    assert [c.run.clicks_to(0.8) for c in found.clicks] == [20]
    assert iou_by_click(found, "truth") == [pytest.approx(0.5)] * 20


def test_a_model_that_finds_everything_else_has_dice_0(tmp_path: Path) -> None:
    image = make_image(tmp_path, outlines=[SQUARE], class_names=["gland"])
    frame = shapely.box(-1000, -1000, 2000, 2000)

    found = asked([image], truth_model(change=frame.difference), kinds=("box", "points"))

    assert all(s.fit.dice < 0.001 for s in scores_of_models(found))


def test_answers_over_the_lr_patch_are_compared_where_they_lie(tmp_path: Path) -> None:
    image = make_image(tmp_path, outlines=[SQUARE], class_names=["gland"])

    whole = asked([image], truth_model(patch="lr"))
    half = asked([image], truth_model(patch="lr", change=upper_half))

    # An LR pixel is 2 µm wide, and the edges of the square lie on whole ones or in their middle.
    assert all(score.fit.dice > 0.98 for score in scores_of_models(whole))
    assert [c.run.clicks_to(0.9) for c in whole.clicks] == [1]
    assert {round(s.fit.dice, 2) for s in scores_of_models(half)} <= {0.66, 0.67}


def test_in_a_fixed_window_what_an_answer_finds_beyond_it_does_not_count(tmp_path: Path) -> None:
    window = {"window_mpp": 0.25, "kinds": ("box",)}  # 64 of the square's 100 µm
    image = make_image(tmp_path, outlines=[SQUARE], class_names=["gland"])

    found = asked([image], truth_model(patch="lr"), truth_model("hr"), **window)

    assert all(s.fit.dice > 0.999 for s in scores_of_models(found))


def test_all_models_are_asked_the_same(tmp_path: Path) -> None:
    first, second = truth_model("a"), truth_model("b", change=upper_half)

    asked([make_image(tmp_path)], first, second, kinds=("box", "points", "outline"))

    assert [pair for pair, _ in first.asked] == [pair for pair, _ in second.asked]
    for (_, one), (_, other) in zip(first.asked, second.asked, strict=True):
        np.testing.assert_array_equal(one.point_coords, other.point_coords)


def test_each_pair_is_encoded_once(tmp_path: Path) -> None:
    model = truth_model()

    asked([make_image(tmp_path)], model)

    assert len(model.embedded) == len(set(model.embedded))


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_measured(
    tmp_path: Path,
) -> None:
    good = make_image(tmp_path)
    gone = replace(good, name="gone", slide=SlideReference(str(tmp_path / "gone.tif")))

    found = asked([gone, good], truth_model(), kinds=("box",), scale="median")

    assert [case.id for case in found.skipped] == ["gone"]
    assert len(scores_of_models(found)) == 2


def test_where_nothing_can_be_read_there_is_no_evaluation(tmp_path: Path) -> None:
    gone = replace(make_image(tmp_path), slide=SlideReference(str(tmp_path / "gone.tif")))

    with pytest.raises(PromptError, match=r"No object could be measured: .*gone\.tif"):
        asked([gone], truth_model())


def test_a_model_that_leaves_a_prompt_unanswered_is_named(tmp_path: Path) -> None:
    class Silent(OutlineModel):
        def predict(self, embedding: Any, encoded: Sequence[EncodedPrompt]) -> list[Prediction]:
            return super().predict(embedding, encoded)[1:]

    with pytest.raises(OptionError, match=r"silent returned \d results for \d prompts"):
        asked([make_image(tmp_path)], Silent("silent", (SQUARE, TALL)))


def test_an_object_without_a_window_that_says_something_is_named_once(tmp_path: Path) -> None:
    everything = shapely.box(72, 22, 328, 278)  # 16 windows of 64, all of them full
    image = make_image(tmp_path, outlines=[everything, SQUARE], class_names=["x", "x"])

    found = asked([image], truth_model("a"), truth_model("b"), window_mpp=0.25)

    assert [case.id for case in found.skipped] == ["one, object 1"]


def test_objects_without_a_box_of_the_other_model_count_0(tmp_path: Path) -> None:
    image = make_image(tmp_path)
    boxes = {"one": (Box(58, 52, 161, 149), Box(0, 0, 20, 20))}

    found = evaluate_models(
        [SelectedObjects(image, image.truths)],
        [truth_model()],
        ProtocolSettings(kinds=("box",)),
        QUIET,
        boxes=boxes,
    )

    given = {s.object_key.object_id: s for s in scores_of_models(found) if s.label == GIVEN_BOX}
    assert given["1"].fit.dice > 0.999
    assert (given["2"].fit, given["2"].predicted_iou) == (NOTHING, None)
    assert found.spare_boxes == 1


def test_each_box_is_for_the_object_that_it_fits_best() -> None:
    truths = [
        Truth("left", shapely.box(0, 0, 100, 100), ""),
        Truth("right", shapely.box(20, 0, 120, 100), ""),
        Truth("far", shapely.box(500, 0, 600, 100), ""),
    ]
    boxes = [Box(15, 0, 115, 100), Box(5, 0, 105, 100), Box(560, 0, 700, 100)]

    assert box_iou(boxes[0], truths[1].l0_box) == pytest.approx(95 / 105)
    assert match_boxes(truths, boxes) == {"right": boxes[0], "left": boxes[1]}


def test_boxes_are_read_from_coco_and_from_a_folder_of_geojson(tmp_path: Path) -> None:
    image = make_image(tmp_path)
    coco = tmp_path / "boxes.json"
    coco.write_text(
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "one.tif"}],
                "annotations": [{"image_id": 7, "bbox": [10, 20, 30, 40]}],
            }
        )
    )
    folder = tmp_path / "boxes"
    folder.mkdir()
    ring = [[10, 20], [40, 20], [40, 60], [10, 60], [10, 20]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "id": "x", "geometry": polygon, "properties": {}}
    (folder / "one.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [feature]})
    )

    expected = {"one": (Box(10, 20, 40, 60),)}
    assert read_boxes(coco, [image]) == expected
    assert read_boxes(folder, [image]) == expected
    assert read_boxes(folder / "one.geojson", [image]) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [], "annotations": []}, "none of the 1 images"),
        ({"images": [{"id": 1}], "annotations": []}, "no MS COCO with boxes"),
        (
            {
                "images": [{"id": 1, "file_name": "one.png"}],
                "annotations": [{"image_id": 1, "bbox": [1, 2, 3]}],
            },
            "no MS COCO with boxes",
        ),
    ],
)
def test_bad_boxes_are_refused(tmp_path: Path, content: object, message: str) -> None:
    image = make_image(tmp_path)
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))

    with pytest.raises(PromptError, match=message):
        read_boxes(path, [image])


def test_a_part_of_the_split_is_chosen_or_said_to_be_missing(tmp_path: Path) -> None:
    held_out = make_image(tmp_path, "a", group="p1", part="test")
    trained = make_image(tmp_path, "b", group="p2", part="train")

    assert select_part([held_out, trained], "test") == ((held_out,), None)
    assert select_part([held_out, trained], "all") == ((held_out, trained), None)
    images, remark = select_part([trained], "test")
    assert images == (trained,)
    assert remark is not None
    with pytest.raises(PromptError, match="No object is in the val part"):
        select_part([held_out], "val")


def test_a_limit_takes_as_many_from_each_image_of_each_dataset(tmp_path: Path) -> None:
    rows = [shapely.box(10, y, 40, y + 5) for y in range(10, 290, 10)]
    images = [
        make_image(
            tmp_path, f"{dataset}{n}", dataset=dataset, outlines=rows, class_names=["x"] * len(rows)
        )
        for dataset in ("a", "b")
        for n in range(3)
    ]

    chosen = limit_objects(images, 7, seed=0)

    counts = {one.image.name: len(one.truths) for one in chosen}
    assert sorted(n for name, n in counts.items() if name[0] == "a") == [2, 2, 3]
    assert sum(counts.values()) == 14
    assert limit_objects(images, 7, seed=0) == chosen
    assert limit_objects(images, 7, seed=1) != chosen
    assert sum(len(one.truths) for one in limit_objects(images, None, seed=0)) == 6 * len(rows)


def test_a_summary_has_means_by_dataset_and_the_gain_over_the_first_model(
    tmp_path: Path,
) -> None:
    images = [
        make_image(
            tmp_path / name,
            f"{name}{n}",
            dataset=name,
            group=str(n),
            outlines=[SQUARE] * count,
            class_names=["gland"] * count,
        )
        for name, count in (("few", 1), ("many", 3))
        for n in range(2)
    ]
    half = truth_model("half", change=upper_half)
    found = asked(images, half, truth_model("whole"), kinds=("box",))

    blocks = summarize(found, ["half", "whole"], "dataset")

    assert [block.title for block in blocks] == [
        "few",
        "many",
        "all objects",
        "mean of 2 datasets",
    ]
    assert [(block.objects, block.groups) for block in blocks] == [(2, 2), (6, 2), (8, 4), (8, 4)]
    for block in blocks:
        row, surface = block.rows
        assert (row.name, surface.name) == ("Dice, box", "surface Dice, box")
        assert row.cells["half"].mean == pytest.approx(2 / 3, abs=0.001)
        assert row.cells["whole"].mean > 0.999
        assert row.cells[PROMPTED_BOX].mean > 0.8
        assert row.cells[WHOLE_PATCH].mean == pytest.approx(2 * 10_000 / (10_000 + 256 * 256), 0.3)
        assert list(row.gains) == ["whole"]
        assert row.gains["whole"].mean == pytest.approx(1 / 3, abs=0.001)
    assert [b.title for b in summarize(found, ["half"], "patient")][:2] == [
        "few, patient 0",
        "few, patient 1",
    ]


def test_an_iou_that_is_always_the_same_says_nothing(tmp_path: Path) -> None:
    found = asked([make_image(tmp_path)], truth_model(), kinds=("box",))

    assert correlations(found, "truth") == {"all prompts": None, "box": None}


def evaluated(tmp_path: Path, **request: Any) -> Evaluation:
    images = (make_image(tmp_path, "a", group="p1"), make_image(tmp_path, "b", group="p2"))
    return run_evaluate(Dataset(images), EvaluateRequest(models=(TRUTH_MODEL,), **request), QUIET)


def test_an_evaluation_prints_a_table(tmp_path: Path) -> None:
    table = evaluated(tmp_path).table

    lines = table.splitlines()
    assert lines[0].startswith("Asked as in use. Points come with no size; noise of box edges 5 %")
    assert lines[1:4] == ["truth: a model from elsewhere", "", "set: 4 objects, 2 patients"]
    assert lines[4].split(maxsplit=1)[0] == "truth"
    assert lines[4].endswith(PROMPTED_BOX)
    assert "NoC@80 1.00 [1.00, 1.00] - -" in [" ".join(line.split()) for line in lines]
    assert "failures at 80, % 0.0 [0.0, 0.0] - -" in [" ".join(line.split()) for line in lines]
    assert all(line == line.rstrip() for line in lines)


def test_an_evaluation_writes_all_of_it_as_json(tmp_path: Path) -> None:
    path = tmp_path / "result.json"

    evaluated(tmp_path, json_file=path, limit=2)

    record = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert record["settings"]["box_noise"] == 0.05
    assert record["settings"]["limit"] == 2
    assert record["hardware"]["cores"] > 0
    assert record["split"] == [
        {"dataset": "set", "part": None, "group": "p1", "images": 1},
        {"dataset": "set", "part": None, "group": "p2", "images": 1},
    ]
    assert [model["name"] for model in record["models"]] == ["truth"]
    assert sum(answer["model"] == "truth" for answer in record["answers"]) == 2 * 7
    assert [len(run["clicks"]) for run in record["clicks"]] == [1, 1]
    assert set(record["summary"]) == {"dataset", "class", "image", "patient"}


def test_an_evaluation_draws_plots_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    evaluated(tmp_path, plots=tmp_path / "plots", figures=tmp_path / "figures", figures_count=3)

    plots = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert plots == ["dice-by-points.png", "iou-by-click.png", "predicted-iou.png"]
    figures = sorted((tmp_path / "figures").iterdir())
    assert len(figures) == 3
    with Image.open(figures[0]) as sheet:
        assert sheet.size == (2 * 320, (7 + 4) * (320 + 18))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"limit": 0}, "limit: 0 is too small"),
        ({"models": ()}, "no model"),
        ({"figures_count": -1}, "-1"),
    ],
)
def test_a_request_out_of_range_is_refused(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        EvaluateRequest(**request_)


def test_a_dataset_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="datasets: 'other' is none of set"):
        evaluated(tmp_path, datasets=("other",))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("none", ("lite-medsam", None)),
        ("mobile-sam", ("mobile-sam", None)),
        ("a/b.safetensors", ("lite-medsam", Path("a/b.safetensors"))),
        ("mobile-sam+a+b.safetensors", ("mobile-sam", Path("a+b.safetensors"))),
        ("mobile-sam+none", ("mobile-sam", None)),
        ("other+b.safetensors", ("lite-medsam", Path("other+b.safetensors"))),
    ],
)
def test_a_specification_names_a_base_and_an_adapter(
    spec: str, expected: tuple[str, Path | None]
) -> None:
    assert parse_spec(spec, "lite-medsam") == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module:make", "cannot be imported.*PYTHONPATH"),
        ("fixtures.evaluate_models:nothing", "has no function nothing"),
        (
            "fixtures.evaluate_models:no_model",
            r"returned object, without a name, base_size_px above 0",
        ),
    ],
)
def test_a_factory_that_makes_no_model_is_refused(spec: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_model(spec, ModelSpec())


def test_without_an_adapter_it_is_said_that_the_base_alone_answers(tmp_path: Path) -> None:
    told = Console(record=True, width=200, file=io.StringIO())

    run_evaluate(
        Dataset((make_image(tmp_path),)),
        EvaluateRequest(models=("none",), settings=ProtocolSettings(kinds=("box",))),
        told,
    )

    assert "No adapter is measured: bases alone answer." in told.export_text()


def test_times_have_a_row_each(tmp_path: Path) -> None:
    found = asked([make_image(tmp_path)], truth_model(), kinds=("box", "noc"))

    times = seconds(found, "truth")

    assert list(times) == ["encode a patch pair", "answer a prompt", "answer a click (SPC)"]
    assert all(time is not None and time > 0 for time in times.values())


def test_slides_have_the_class_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "classes.tsv"
    table.write_text("a\tIDC\n")
    images = (make_image(tmp_path, "a"), make_image(tmp_path, "b"))

    first, second = put_slide_classes(images, table)

    assert {truth.class_name for truth in first.truths} == {"IDC"}
    assert second == images[1]
    table.write_text("other\tIDC\n")
    with pytest.raises(PromptError, match="names none of the images"):
        put_slide_classes(images, table)


def test_a_table_by_class_ends_with_the_mean_of_the_classes(tmp_path: Path) -> None:
    image = make_image(tmp_path, class_names=["few", "many"])

    blocks = summarize(asked([image], truth_model(), kinds=("box",)), ["truth"], "class")

    assert [block.title for block in blocks] == [
        "set, few",
        "set, many",
        "all objects",
        "mean of 2 classes",
    ]


def test_our_own_models_answer_as_the_segment_command_does(
    tmp_path: Path, wsi_openvino: Predictor
) -> None:
    image = make_image(tmp_path, outlines=[SQUARE], class_names=["gland"])
    model = PredictorModel("own", wsi_openvino)

    (score,) = scores_of_models(asked([image], model, kinds=("box",), box_noise=0.0))

    with image.slide.open() as slide:
        (result,) = model.segmenter.segment(slide, boxes=[SQUARE.bounds])
        assert result.polygon is not None
        expected = measure_fit(SQUARE, result.polygon, shapely.box(0, 0, 400, 300), slide.mpp)
    assert score.fit == expected
    assert score.predicted_iou == result.predicted_iou


def test_second_passes_can_be_left_out() -> None:
    shipped = find_shipped_adapter(DEFAULT_BASE)
    assert shipped is not None
    usual, single = (
        load_model(str(shipped), ModelSpec(backend="openvino", device="cpu"), second_pass=on)
        for on in (True, False)
    )

    assert isinstance(usual, PredictorModel)
    assert isinstance(single, PredictorModel)
    passes = [
        {route.second_pass.value for route in model.predictor.adapter.card.routes.values()}
        for model in (usual, single)
        if model.predictor.adapter is not None
    ]
    assert passes == [{"none", "own-mask"}, {"none"}]
