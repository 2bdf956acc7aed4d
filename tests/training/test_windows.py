"""Windows around objects: cut where they say, and answers in them are those of the whole mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fixtures.models import PLAIN_BASE
from fixtures.training_models import CPU, WSI_SAM, make_cache
from wsisam_qupath.model.card import SamLogits
from wsisam_qupath.model.decoders import WsiSamDecoder
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath_training.sampling.prompt_sampling import Plan, draw_first_prompts
from wsisam_qupath_training.settings import DecoderSettings
from wsisam_qupath_training.trainer.losses import mask_loss
from wsisam_qupath_training.trainer.sample_sources import CachedSamples
from wsisam_qupath_training.trainer.targets import TargetMasks
from wsisam_qupath_training.trainer.trainable_decoder import TrainableDecoder
from wsisam_qupath_training.trainer.windows import (
    MARGIN,
    SIDES,
    Windows,
    draw_edge_windows,
    find_windows,
)


def mask(x0: int, y0: int, x1: int, y1: int) -> torch.Tensor:
    found = torch.zeros(256, 256)
    found[y0:y1, x0:x1] = 1
    return found


def test_a_cut_is_a_slice_of_each() -> None:
    tensor = torch.rand(2, 256, 256, 3)

    cut = Windows((10, 100), (20, 160), 96).cut(tensor)

    assert torch.equal(cut[0], tensor[0, 20:116, 10:106])
    assert torch.equal(cut[1], tensor[1, 160:256, 100:196])


def test_one_tensor_is_cut_for_all() -> None:
    tensor = torch.rand(1, 256, 256)

    cut = Windows((0, 5), (7, 9), 96).cut(tensor)

    assert torch.equal(cut, torch.stack([tensor[0, 7:103, :96], tensor[0, 9:105, 5:101]]))


def test_what_was_cut_can_be_put_back_in_its_place() -> None:
    whole, windows = torch.rand(2, 256, 256), Windows((10, 100), (20, 160), 96)
    before = whole.clone()

    filled = windows.put(whole, torch.full((2, 96, 96), 7.0))

    assert torch.equal(windows.put(filled, windows.cut(whole)), whole)
    assert (windows.cut(filled) == 7).all()
    assert [int(number) for number in (filled == 7).sum(dim=(1, 2))] == [96 * 96] * 2
    assert torch.equal(whole, before)


@pytest.mark.parametrize("seed", range(10))
def test_windows_at_edges_lie_in_the_mask_and_see_both_sides_of_an_edge(seed: int) -> None:
    truth = torch.stack([mask(0, 0, 200, 170), mask(100, 90, 110, 100), mask(0, 0, 256, 200)])

    windows = draw_edge_windows(truth, 64, np.random.default_rng(seed))

    assert windows.side == 64
    assert all(0 <= start <= 256 - 64 for start in (*windows.x0, *windows.y0))
    inside = windows.cut(truth).mean(dim=(1, 2))
    assert ((inside > 0) & (inside < 1)).all()


def test_windows_at_edges_are_drawn_at_different_places() -> None:
    truth = mask(40, 40, 200, 200)[None]

    drawn = {draw_edge_windows(truth, 64, np.random.default_rng(seed)) for seed in range(20)}

    assert len(drawn) > 10


def test_a_mask_without_edges_has_a_window_anywhere() -> None:
    windows = draw_edge_windows(torch.zeros(2, 256, 256), 96, np.random.default_rng(0))

    assert all(0 <= start <= 160 for start in (*windows.x0, *windows.y0))
    assert windows.x0[0] != windows.x0[1]


def test_windows_hold_their_objects_with_a_margin_and_lie_in_the_mask() -> None:
    truth = torch.stack([mask(0, 0, 50, 30), mask(100, 90, 190, 120), mask(240, 250, 256, 256)])

    windows = find_windows(truth)

    assert windows is not None
    assert windows.side == next(side for side in SIDES if side >= 90 + 2 * MARGIN)
    assert windows.x0 == (0, 145 - windows.side // 2, 256 - windows.side)
    assert windows.y0 == (0, 105 - windows.side // 2, 256 - windows.side)
    assert torch.equal(windows.cut(truth).sum(dim=(1, 2)), truth.sum(dim=(1, 2)))


def test_an_empty_mask_has_a_window_too() -> None:
    windows = find_windows(torch.zeros(1, 256, 256))

    assert windows == Windows((0,), (0,), SIDES[0])


def test_windows_may_be_larger_than_their_objects_need() -> None:
    truth = torch.stack([mask(0, 0, 50, 30), mask(100, 90, 190, 120)])

    windows = find_windows(truth, 160)

    assert windows == Windows((0, 65), (0, 25), 160)


def test_a_large_object_needs_the_whole_mask() -> None:
    assert find_windows(mask(20, 20, 230, 60)[None]) is None


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> CachedSamples:
    return CachedSamples(make_cache(tmp_path_factory.mktemp("views"), 1))


def with_card(**changes: object) -> DecoderSettings:
    return WSI_SAM.model_copy(
        update={"card": WSI_SAM.card.model_copy(update=changes), "sam_weight": 0.5}
    )


SMALL, SMALL_LR = mask(100, 60, 140, 120)[None], mask(114, 94, 134, 124)[None]
SEED = 5
ADDED = with_card(sam_logits=SamLogits.BOTH)


def find_expected_windows(settings: DecoderSettings, truths: list[torch.Tensor]) -> list[Windows]:
    """The windows of the loss: around the objects, or at edges where SAM's logits are added."""
    if settings.card.sam_logits is not SamLogits.NONE:
        rng = np.random.default_rng(SEED)
        return [draw_edge_windows(truth, settings.window_px, rng) for truth in truths]
    found = [find_windows(truth) for truth in truths]
    return [windows for windows in found if windows is not None]


@pytest.mark.parametrize(
    "settings",
    [with_card(), with_card(hr_only=True), ADDED, with_card(aggregation="features")],
    ids=["both patches", "hr only", "with sam's logits", "mixed features"],
)
@torch.no_grad()
def test_a_windowed_loss_is_that_of_the_answers_cut_to_the_window(
    settings: DecoderSettings, samples: CachedSamples, lite_state: dict[str, torch.Tensor]
) -> None:
    torch.manual_seed(0)
    trainable = TrainableDecoder(PLAIN_BASE, lite_state, settings)
    decoder = trainable.decoder
    assert isinstance(decoder, WsiSamDecoder)
    loaded = samples.load(0)
    features = samples.features(loaded, trainable, CPU.device)
    prompts = draw_first_prompts(
        loaded.truth, [0], Plan(PromptKind.BOX), settings.mix, 256, np.random.default_rng(0)
    )
    count = trainable.patch_count
    truths = [SMALL, SMALL_LR][:count]
    wanted = TargetMasks(
        torch.stack(truths, dim=1), torch.ones(1, count, 256, 256), torch.full((1, count), 5000.0)
    )

    loss = trainable(features, prompts, wanted, windows_seed=SEED)

    predicted = trainable.predict(features, prompts)
    weight = settings.cross_entropy_weight
    if decoder.mixes_features:
        windows = [Windows((0,), (0,), 256)] * count
    else:
        windows = find_expected_windows(settings, truths)
    expected = []
    for r, window in enumerate(windows):
        logits = window.cut(predicted.logits[:, r])
        known = torch.ones_like(logits)
        expected.append(
            mask_loss(logits, window.cut(truths[r]), known, cross_entropy_weight=weight)
        )
    names = ["hr", "lr"][:count]
    for name, value in zip(names, expected, strict=True):
        assert loss.parts[name] == pytest.approx(float(value), rel=0.02)
    assert ("lr" in loss.parts) == settings.card.reads_lr
    share = settings.hr_share if settings.card.reads_lr else 1.0
    total = share * loss.parts["hr"] + (1 - share) * loss.parts.get("lr", 0.0)
    total += settings.iou_weight * loss.parts["iou_error"]
    total += settings.sam_weight * loss.parts.get("sam", 0.0)
    assert loss.total.item() == pytest.approx(total, rel=1e-4)
    assert ("sam" in loss.parts) == (not decoder.mixes_features)


@torch.no_grad()
def test_sams_own_masks_have_a_loss_over_the_whole_patches_though_the_others_have_windows(
    samples: CachedSamples, lite_state: dict[str, torch.Tensor]
) -> None:
    trainable = TrainableDecoder(PLAIN_BASE, lite_state, ADDED)
    assert isinstance(trainable.decoder, WsiSamDecoder)
    loaded = samples.load(0)
    features = samples.features(loaded, trainable, CPU.device)
    prompts = draw_first_prompts(
        loaded.truth, [0], Plan(PromptKind.BOX), ADDED.mix, 256, np.random.default_rng(0)
    )
    truth = torch.stack([SMALL, SMALL_LR], dim=1)
    known = torch.ones_like(truth)

    loss = trainable(
        features, prompts, TargetMasks(truth, known, torch.full((1, 2), 5000.0)), windows_seed=SEED
    )

    updated = trainable.decoder.update(
        features.tokens,
        torch.from_numpy(prompts.point_coords),
        torch.from_numpy(prompts.point_labels),
    )
    own = trainable.decoder.predict_as_sam(updated).logits
    hr, lr = (
        mask_loss(
            own[:, r], truth[:, r], known[:, r], cross_entropy_weight=ADDED.cross_entropy_weight
        )
        for r in range(2)
    )
    expected = ADDED.hr_share * hr + (1 - ADDED.hr_share) * lr
    assert loss.parts["sam"] == pytest.approx(float(expected), rel=1e-4)
