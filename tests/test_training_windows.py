"""Windows round objects: cut where they say, and answers in them are those of the whole mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import PLAIN_BASE
from training_models import CPU, WSI_SAM, make_cache
from wsisam_qupath.model.decoders import WsiSamDecoder
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath_training.draws import Plan, first_prompts
from wsisam_qupath_training.learner import Learner, Wanted
from wsisam_qupath_training.losses import mask_loss
from wsisam_qupath_training.settings import DecoderSettings
from wsisam_qupath_training.view_sources import CachedViews
from wsisam_qupath_training.windows import MARGIN, SIDES, Windows, windows_round

EDGE_PX = 2
HR_ONLY = WSI_SAM.model_copy(update={"card": WSI_SAM.card.model_copy(update={"hr_only": True})})


def mask(x0: int, y0: int, x1: int, y1: int) -> torch.Tensor:
    found = torch.zeros(256, 256)
    found[y0:y1, x0:x1] = 1
    return found


def test_a_cut_is_a_slice_of_each() -> None:
    tensor = torch.rand(2, 3, 256, 256)

    cut = Windows((10, 100), (20, 160), 96).cut(tensor)

    assert torch.equal(cut[0], tensor[0, :, 20:116, 10:106])
    assert torch.equal(cut[1], tensor[1, :, 160:256, 100:196])


def test_one_tensor_is_cut_for_all() -> None:
    tensor = torch.rand(1, 256, 256)

    cut = Windows((0, 5), (7, 9), 96).cut(tensor)

    assert torch.equal(cut, torch.stack([tensor[0, 7:103, :96], tensor[0, 9:105, 5:101]]))


def test_windows_hold_their_objects_with_a_margin_and_lie_in_the_mask() -> None:
    truth = torch.stack([mask(0, 0, 50, 30), mask(100, 90, 190, 120), mask(240, 250, 256, 256)])

    windows = windows_round(truth)

    assert windows is not None
    assert windows.side == next(side for side in SIDES if side >= 90 + 2 * MARGIN)
    assert windows.x0 == (0, 145 - windows.side // 2, 256 - windows.side)
    assert windows.y0 == (0, 105 - windows.side // 2, 256 - windows.side)
    assert torch.equal(windows.cut(truth).sum(dim=(1, 2)), truth.sum(dim=(1, 2)))


def test_an_empty_mask_has_a_window_too() -> None:
    windows = windows_round(torch.zeros(1, 256, 256))

    assert windows == Windows((0,), (0,), SIDES[0])


def test_a_large_object_needs_the_whole_mask() -> None:
    assert windows_round(mask(20, 20, 230, 60)[None]) is None


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> CachedViews:
    return CachedViews(make_cache(tmp_path_factory.mktemp("views"), 1))


@torch.no_grad()
def test_answers_in_a_window_are_those_of_the_whole_mask_but_at_its_edge(
    lesson: CachedViews, lite_state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    learner = Learner(PLAIN_BASE, lite_state, WSI_SAM)
    decoder = learner.decoder
    assert isinstance(decoder, WsiSamDecoder)
    loaded = lesson.load(0)
    images = lesson.images(loaded, learner, CPU.device)
    prompts = first_prompts(
        loaded.truth, [0], Plan(PromptKind.BOX), WSI_SAM.mix, 256, np.random.default_rng(0)
    )
    window = Windows((90,), (40,), 96)

    hr_features = decoder.hr.image_features(images.hr, images.hr_early)
    coords, labels = torch.from_numpy(prompts.coords), torch.from_numpy(prompts.labels)
    tokens = decoder.tokens(images.hr, images.lr, coords, labels)
    cut = decoder.hr.logits(tokens.token, window.cut(tokens.hr_upscaled), window.cut(hr_features))

    whole = window.cut(learner.answer(images, prompts).hr_logits)
    difference = (cut - whole).abs()[0]
    inside = difference[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX]
    assert inside.max() < 1e-4 * whole.abs().max()
    assert difference.max() > inside.max()


@pytest.mark.parametrize(
    "settings",
    [
        WSI_SAM,
        WSI_SAM.model_copy(update={"card": WSI_SAM.card.model_copy(update={"hr_only": True})}),
    ],
    ids=["both patches", "hr only"],
)
@torch.no_grad()
def test_a_windowed_loss_is_that_of_the_answers_cut_to_the_window(
    settings: DecoderSettings, lesson: CachedViews, lite_state: dict[str, torch.Tensor]
) -> None:
    torch.manual_seed(0)
    learner = Learner(PLAIN_BASE, lite_state, settings)
    loaded = lesson.load(0)
    images = lesson.images(loaded, learner, CPU.device)
    prompts = first_prompts(
        loaded.truth, [0], Plan(PromptKind.BOX), settings.mix, 256, np.random.default_rng(0)
    )
    small = mask(100, 60, 140, 120)[None]
    all_known = torch.ones(1, 256, 256)
    wanted = Wanted(small, small, all_known, all_known)

    loss = learner(images, prompts, wanted, is_windowed=True)

    windows = windows_round(small)
    assert windows is not None
    logits = windows.cut(learner.answer(images, prompts).hr_logits)
    known = torch.ones_like(logits)
    hr = mask_loss(
        logits, windows.cut(small), known, cross_entropy_weight=settings.cross_entropy_weight
    )
    assert loss.parts["hr"] == pytest.approx(float(hr), rel=0.02)
    assert ("lr" in loss.parts) == settings.card.reads_lr
    share = settings.hr_share if settings.card.reads_lr else 1.0
    total = share * loss.parts["hr"] + (1 - share) * loss.parts.get("lr", 0.0)
    total += settings.iou_weight * loss.parts["iou_error"]
    assert loss.total.item() == pytest.approx(total, rel=1e-4)
