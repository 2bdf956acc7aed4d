"""The cache of features: filled once, gone on with, never mistaken for another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import shapely

from fixtures.disks import small_disk
from fixtures.evaluate_models import MPP, SQUARE, TALL, make_image
from fixtures.models import PLAIN_BASE
from fixtures.training_models import PLAIN_VIEWS, TUNED_SAM, FormulaEncoder, sampled
from wsisam_qupath.errors import OptionError, OutputError
from wsisam_qupath.geometry import PatchPair
from wsisam_qupath.slide import Slide
from wsisam_qupath_training.dataset import AnnotatedImage, Truth
from wsisam_qupath_training.sampling.feature_cache import (
    FeatureCache,
    cache_key,
    count_bytes,
    fill_cache,
)
from wsisam_qupath_training.sampling.samples import (
    Sample,
    SamplingSettings,
    rasterize_targets,
    read_patches,
)
from wsisam_qupath_training.settings import Recipe, one_decoder
from wsisam_qupath_training.trainer.training_data import count_views

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Tissue:
    """A field of two rectangles, open, with three views of it."""

    image: AnnotatedImage
    slide: Slide
    samples: tuple[Sample, ...]
    settings: SamplingSettings = PLAIN_VIEWS

    def fill(self, folder: Path, backend: FormulaEncoder) -> FeatureCache:
        return fill_cache(
            folder, backend, PLAIN_BASE, [self.image], [self.slide], self.samples, self.settings
        )

    def key(self, backend: str = "formula", least_mask_px: int = 48) -> str:
        settings = PLAIN_VIEWS.model_copy(update={"least_mask_px": least_mask_px})
        return cache_key(PLAIN_BASE, backend, [self.image], [self.slide], self.samples, settings)


@contextmanager
def open_data(
    folder: Path, count: int = 3, settings: SamplingSettings = PLAIN_VIEWS
) -> Iterator[Tissue]:
    image = make_image(folder)
    with sampled(image, count, settings=settings) as (slide, samples):
        yield Tissue(image, slide, samples, settings)


@pytest.fixture
def tissue(tmp_path: Path) -> Iterator[Tissue]:
    with open_data(tmp_path) as found:
        yield found


def test_a_view_comes_back_as_it_was_encoded_and_seen(tissue: Tissue, tmp_path: Path) -> None:
    cache = tissue.fill(tmp_path / "features", FormulaEncoder())

    assert cache.usable.tolist() == [0, 1, 2]
    sample = cache.sample(1)
    encoded = FormulaEncoder().encode(read_patches(tissue.slide, tissue.samples[1]))
    assert np.array_equal(sample.hr_tokens, encoded.tokens[0].astype(np.float16))
    assert np.array_equal(sample.lr_early, encoded.early[1].astype(np.float16))
    masks = rasterize_targets(tissue.image, tissue.samples[1], PLAIN_VIEWS)
    for name, wanted in vars(masks).items():
        assert np.array_equal(getattr(sample.truth, name), wanted), name


def test_no_view_is_encoded_twice(tissue: Tissue, tmp_path: Path) -> None:
    first, second = FormulaEncoder(), FormulaEncoder()

    tissue.fill(tmp_path / "features", first)
    tissue.fill(tmp_path / "features", second)

    assert (first.encoded, second.encoded) == (6, 0)


CHAINS = PLAIN_VIEWS.model_copy(update={"chain": 2})


def test_the_samples_of_a_chain_share_a_patch_that_is_encoded_once(tmp_path: Path) -> None:
    backend = FormulaEncoder()

    with open_data(tmp_path, 5, CHAINS) as tissue:
        cache = tissue.fill(tmp_path / "features", backend)
        encoded = [
            FormulaEncoder().encode(read_patches(tissue.slide, sample)) for sample in tissue.samples
        ]

    assert backend.encoded == 3 + 3 + 2  # the last chain is one sample short
    samples = [cache.sample(index) for index in range(5)]
    for sample, wanted in zip(samples, encoded, strict=True):
        assert np.array_equal(sample.hr_tokens, wanted.tokens[0].astype(np.float16))
        assert np.array_equal(sample.lr_tokens, wanted.tokens[1].astype(np.float16))
        assert np.array_equal(sample.hr_early, wanted.early[0].astype(np.float16))
        assert np.array_equal(sample.lr_early, wanted.early[1].astype(np.float16))
    assert np.shares_memory(samples[0].lr_tokens, samples[1].hr_tokens)
    assert not np.shares_memory(samples[1].lr_tokens, samples[2].hr_tokens)


@pytest.mark.parametrize(("settings", "count"), [(PLAIN_VIEWS, 3), (CHAINS, 4), (CHAINS, 5)])
def test_features_occupy_as_many_bytes_as_were_counted(
    tmp_path: Path, settings: SamplingSettings, count: int
) -> None:
    with open_data(tmp_path, count, settings) as tissue:
        tissue.fill(tmp_path / "features", FormulaEncoder())

    files = [np.load(path, mmap_mode="r") for path in (tmp_path / "features").glob("*.npy")]
    assert sum(file.nbytes for file in files) == count_bytes(count, PLAIN_BASE, settings)


def test_an_interrupted_filling_goes_on(tissue: Tissue, tmp_path: Path) -> None:
    rest = FormulaEncoder()

    with pytest.raises(KeyboardInterrupt):
        tissue.fill(tmp_path / "features", FormulaEncoder(fails_after=2))
    cache = tissue.fill(tmp_path / "features", rest)

    assert rest.encoded == 4
    whole = tissue.fill(tmp_path / "others", FormulaEncoder())
    for index in range(3):
        ours, theirs = cache.sample(index), whole.sample(index)
        assert np.array_equal(ours.hr_tokens, theirs.hr_tokens)
        assert np.array_equal(ours.truth.hr_masks, theirs.truth.hr_masks)


def test_a_view_without_objects_is_neither_encoded_nor_used(tissue: Tissue, tmp_path: Path) -> None:
    corner = replace(tissue.samples[0], pair=PatchPair(20, 20, 0.05, 256, MPP))
    backend = FormulaEncoder()

    cache = replace(tissue, samples=(corner,)).fill(tmp_path / "features", backend)

    assert (len(cache), cache.usable.tolist(), backend.encoded) == (1, [], 0)


def test_a_key_stays_the_same_for_a_copy_with_its_date(tissue: Tissue, tmp_path: Path) -> None:
    copied = make_image(tmp_path / "copy")
    shutil.copystat(tissue.slide.location, copied.slide.location)

    with copied.slide.open() as slide:
        assert replace(tissue, slide=slide).key() == tissue.key()


def test_a_key_is_another_when_the_file_was_written_again(tissue: Tissue) -> None:
    path = Path(tissue.slide.location)
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))

    with tissue.image.slide.open() as again:
        assert replace(tissue, slide=again).key() != tissue.key()


def test_a_key_depends_on_all_that_the_content_depends_on(tissue: Tissue, tmp_path: Path) -> None:
    moved = Truth("1", shapely.affinity.translate(SQUARE, 1), "gland")
    images = {
        "truth": replace(tissue.image, truths=(moved, tissue.image.truths[1])),
        "region": replace(tissue.image, l0_complete=shapely.box(0, 0, 200, 300)),
    }
    pixels = make_image(tmp_path / "other", outlines=(TALL,), class_names=("gland",))
    with pixels.slide.open() as slide:
        keys = {
            "itself": tissue.key(),
            "slide": replace(tissue, slide=slide).key(),
            "samples": replace(tissue, samples=tissue.samples[:2]).key(),
            "backend": tissue.key(backend="formula, bf16"),
            "settings": tissue.key(least_mask_px=49),
            **{name: replace(tissue, image=image).key() for name, image in images.items()},
        }

    assert len(set(keys.values())) == len(keys), keys


def test_a_full_disk_is_told_before_anything_is_encoded(tissue: Tissue, tmp_path: Path) -> None:
    backend = FormulaEncoder()

    with small_disk(tmp_path, 1024) as disk:
        with pytest.raises(OutputError, match=r"cannot be kept in .* Make room there"):
            tissue.fill(disk / "features", backend)
        left = [path.name for path in (disk / "features").iterdir()]

    assert (backend.encoded, left) == (0, [])


def test_as_many_views_are_used_as_have_room(tmp_path: Path) -> None:
    recipe = Recipe(views=50, val_views=4, sampling=CHAINS)
    per_view = count_bytes(2, PLAIN_BASE, CHAINS) / 2
    limit_gb = 20 * per_view / 2**30

    found = count_views(3, 1, recipe, PLAIN_BASE, limit_gb=limit_gb)

    assert (found.wanted, found.val) == (50, 4)
    assert found.n_bytes <= limit_gb * 2**30
    more = count_bytes(found.train + 1, PLAIN_BASE, CHAINS) + count_bytes(4, PLAIN_BASE, CHAINS)
    assert more > limit_gb * 2**30
    with pytest.raises(OptionError, match="of one to train on need more than"):
        count_views(3, 1, recipe, PLAIN_BASE, limit_gb=4 * per_view / 2**30)


def test_an_encoder_that_learns_keeps_no_features() -> None:
    whole = TUNED_SAM.model_copy(update={"scope": "whole"})

    found = count_views(3, 1, one_decoder(whole, views=9), PLAIN_BASE, limit_gb=0.0)

    assert (found.train, found.val, found.n_bytes) == (9, 9, 0)
