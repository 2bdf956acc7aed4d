"""Patches that an earlier run encoded are read from the disk, and give the same outlines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fixtures.models import PLAIN_BASE
from wsisam_qupath import Box, ModelSpec, OutlineOptions, Prompt, Result, Segmenter, Slide
from wsisam_qupath.errors import OptionError
from wsisam_qupath.geometry import Mpp
from wsisam_qupath.inference.backends import Backend
from wsisam_qupath.inference.embedding_store import EmbeddingStore, count_patch_bytes
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.inference.stored_patches import StoredPatches
from wsisam_qupath.server.client_pixels import SentImage, SentPixels

pytestmark = pytest.mark.slow

GLAND = Prompt("gland", l0_box=Box(248, 298, 392, 510))
CLICK = Prompt("click", l0_positives=((320.0, 404.0),))
LARGE = Prompt("large", l0_box=Box(0, 0, 280, 266))
ALL = (GLAND, CLICK, LARGE)


@pytest.fixture(scope="module")
def shipped(cache: Path) -> Predictor:
    """The default model, as it ships."""
    return resolve(ModelSpec(device="cpu", precision="bf16")).load()


def with_store(predictor: Predictor, folder: Path, backend: Backend | None = None) -> Segmenter:
    """The same model in a new process, so to speak: nothing is in memory."""
    backend = backend or predictor.backend
    store = EmbeddingStore(folder, 10**9)
    stored = StoredPatches(store, backend, predictor.base, predictor.adapter)
    return Segmenter(Predictor(backend, predictor.base, predictor.adapter, stored))


def outline(
    segmenter: Segmenter, slide: object, prompts: Iterable[Prompt] = ALL
) -> dict[str, bytes]:
    options = OutlineOptions(min_area_um2=0)
    answers = segmenter.segment(slide, prompts, options)  # type: ignore[arg-type]
    return {one.prompt.id: one.polygon.wkb for one in answers if isinstance(one, Result)}


@pytest.mark.parametrize("name", ["shipped", "plain_torch"])
def test_a_stored_patch_gives_the_outlines_of_a_fresh_one_without_encoding(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, tissue_slide: Slide
) -> None:
    predictor: Predictor = request.getfixturevalue(name)
    first, second = with_store(predictor, tmp_path), with_store(predictor, tmp_path)

    fresh = outline(first, tissue_slide)
    stored = outline(second, tissue_slide)

    assert stored == fresh
    assert fresh
    assert (first.tally.patches_stored, second.tally.pairs_embedded) == (0, 0)
    assert second.tally.patches_stored == len(list(tmp_path.iterdir())) > 1


def test_outlines_differ_little_from_those_without_a_store(
    shipped: Predictor, tmp_path: Path, tissue_slide: Slide
) -> None:
    options = OutlineOptions()
    rounded, exact = (
        {one.prompt.id: one for one in segmenter.segment(tissue_slide, ALL, options)}
        for segmenter in (with_store(shipped, tmp_path), Segmenter(shipped))
    )

    for prompt in ALL:
        one, other = rounded[prompt.id].polygon, exact[prompt.id].polygon
        assert one is not None
        assert other is not None
        assert one.intersection(other).area / one.union(other).area > 0.99


def test_adapters_share_the_patches_of_the_same_encoder_and_of_no_other(
    shipped: Predictor, tmp_path: Path, tissue_slide: Slide
) -> None:
    segmenter = with_store(shipped, tmp_path)
    pair = segmenter.planner(tissue_slide, OutlineOptions()).pair(GLAND)
    outline(segmenter, tissue_slide, [GLAND])
    adapter, store = shipped.adapter, EmbeddingStore(tmp_path, 10**9)
    assert adapter is not None
    other = replace(adapter, sha256="1" * 64)
    tuned = replace(other, encoder_sha256="2" * 64)

    held = [
        StoredPatches(store, shipped.backend, PLAIN_BASE, one).holds(tissue_slide, pair, 1)
        for one in (adapter, other, tuned)
    ]

    assert held == [True, True, False]
    base_alone = StoredPatches(store, shipped.backend, PLAIN_BASE, None)
    assert base_alone.holds(tissue_slide, pair, 1) == (adapter.encoder_sha256 is None)


def test_a_damaged_patch_is_encoded_again(
    shipped: Predictor, tmp_path: Path, tissue_slide: Slide
) -> None:
    fresh = outline(with_store(shipped, tmp_path), tissue_slide)
    damaged = next(iter(tmp_path.iterdir()))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1000])
    again = with_store(shipped, tmp_path)

    assert outline(again, tissue_slide) == fresh

    assert again.tally.pairs_embedded == 1
    assert damaged.read_bytes() == whole


def test_another_content_encoder_or_precision_shares_nothing(
    shipped: Predictor, tmp_path: Path, tissue_slide: Slide
) -> None:
    class Other:
        """The same backend, which computes in other numbers."""

        name = "OpenVINO on CPU, int8 and f32"

    store = EmbeddingStore(tmp_path, 10**9)
    pair = with_store(shipped, tmp_path).planner(tissue_slide, OutlineOptions()).pair(GLAND)
    outline(with_store(shipped, tmp_path), tissue_slide, [GLAND])
    backend = shipped.backend
    same = StoredPatches(store, backend, PLAIN_BASE, shipped.adapter)
    newer = replace(tissue_slide.identity, mtime_ns=tissue_slide.identity.mtime_ns + 1)
    changed = tissue_slide.reference.open()
    changed.identity = newer

    assert same.holds(tissue_slide, pair, 1)
    assert not same.holds(tissue_slide, pair, 2)
    assert not same.holds(tissue_slide, pair.coarser, 1)
    assert not same.holds(changed, pair, 1)
    others = (
        StoredPatches(store, Other(), PLAIN_BASE, shipped.adapter),  # type: ignore[arg-type]
        StoredPatches(store, backend, replace(PLAIN_BASE, sha256="0" * 64), None),
    )
    assert not any(other.holds(tissue_slide, pair, 1) for other in others)


def test_pixels_that_a_client_sent_are_not_kept(shipped: Predictor, tmp_path: Path) -> None:
    rgb = np.full((400, 400, 3), 200, np.uint8)
    sent = SentPixels(400, 400, Mpp(0.5, 0.5), (SentImage(Box(0, 0, 400, 400), rgb, "0" * 64),))
    segmenter = with_store(shipped, tmp_path / "none")

    outline(segmenter, sent, [Prompt("box", l0_box=Box(100, 100, 200, 200))])

    assert segmenter.tally.pairs_embedded == 1
    assert not (tmp_path / "none").exists()


def test_the_size_of_a_patch_is_told_before_it_is_made(
    shipped: Predictor, tmp_path: Path, tissue_slide: Slide
) -> None:
    outline(with_store(shipped, tmp_path), tissue_slide, [GLAND])

    (path,) = tmp_path.iterdir()

    assert path.stat().st_size == pytest.approx(count_patch_bytes(PLAIN_BASE), rel=0.001)


def test_a_model_keeps_patches_where_the_cache_is_if_it_is_told_to(
    cache: Path, tissue_slide: Slide
) -> None:
    spec = ModelSpec(device="cpu", precision="bf16", embeddings_gb=0.5)

    segmenter = Segmenter(resolve(spec).load())
    outline(segmenter, tissue_slide, [LARGE])

    assert list((cache / "embeddings").glob("*.patch"))
    assert resolve(replace(spec, embeddings_gb=0.0)).load().stored is None


@pytest.mark.parametrize("size", [-1.0, float("nan"), float("inf")])
def test_no_size_is_refused(size: float) -> None:
    with pytest.raises(OptionError, match=r"embeddings_gb: .* is no size: give 0 or more GB"):
        resolve(ModelSpec(embeddings_gb=size))
