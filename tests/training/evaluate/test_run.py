"""Whole evaluations: fields and models in; scores, tables, JSON and pictures out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from rich.console import Console

from fixtures.counting import count_encodes
from fixtures.evaluate_models import SQUARE, TALL, OutlineModel, make_image
from fixtures.models import PLAIN_BASE
from wsisam_qupath.errors import OptionError, PromptError
from wsisam_qupath.geometry import Box
from wsisam_qupath.inference.backends import Prediction
from wsisam_qupath.inference.embedding_store import count_patch_bytes
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.inference.shared_patches import SharedPatches
from wsisam_qupath.prompts.encoding import EncodedPrompt
from wsisam_qupath.slide import SlideReference
from wsisam_qupath_training.dataset import AnnotatedImage
from wsisam_qupath_training.evaluate.choosing import SelectedObjects
from wsisam_qupath_training.evaluate.models import Model, PredictorModel
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

PATCH_BYTES = 2 * count_patch_bytes(PLAIN_BASE)
"""Memory of an encoded patch: float32, where the disk has float16."""


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


def test_times_have_a_row_each(tmp_path: Path) -> None:
    found = asked([make_image(tmp_path)], truth_model(), kinds=("box", "noc"))

    times = seconds(found, "truth")

    assert list(times) == ["encode a patch pair", "answer a prompt", "answer a click (SPC)"]
    assert all(time is not None and time > 0 for time in times.values())


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


def test_models_with_one_encoder_encode_each_patch_once(
    tmp_path: Path, plain_openvino: Predictor, wsi_openvino: Predictor
) -> None:
    image = make_image(tmp_path)
    asked_of = {"kinds": ("box", "points", "noc")}
    alone = asked([image], PredictorModel("wsi", wsi_openvino), **asked_of)
    counted = [count_encodes(one) for one in (wsi_openvino, plain_openvino)]
    shared = SharedPatches()
    models = [
        PredictorModel(name, predictor, shared)
        for name, (predictor, _) in zip(("wsi", "plain"), counted, strict=True)
    ]

    together = asked([image], *models, **asked_of)

    (_, first), (_, second) = counted
    assert first.encoded > 0
    assert second.encoded == 0
    assert [one for one in together.scores if one.model == "wsi"] == scores_of_models(alone)
    assert len(together.encode_s["wsi"]) > 0
    assert not together.encode_s["plain"]


def test_models_take_turns_so_that_few_patches_need_to_be_kept(
    tmp_path: Path, plain_openvino: Predictor
) -> None:
    corners = [(x + 20 * (n % 4), 40 + 90 * (n // 4)) for x in (40, 1200) for n in range(8)]
    outlines = [shapely.box(x, y, x + 16, y + 60) for x, y in corners]
    image = make_image(tmp_path, outlines=outlines, class_names=["cell"] * 16, width_px=1400)
    alone, once = count_encodes(plain_openvino)
    asked([image], PredictorModel("alone", alone), kinds=("box",))
    counted, both = count_encodes(plain_openvino)
    shared = SharedPatches(cache_bytes=PATCH_BYTES * once.encoded * 4 // 5)

    asked([image], *(PredictorModel(name, counted, shared) for name in "ab"), kinds=("box",))

    assert once.encoded > 4
    assert both.encoded == once.encoded
