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

from disks import small_disk
from evaluate_models import MPP, SQUARE, TALL, make_field
from models import PLAIN_BASE
from training_models import PLAIN_VIEWS, FormulaEncoder, sampled
from wsisam_qupath.errors import OutputError
from wsisam_qupath.geometry import PatchPair
from wsisam_qupath.slide import Slide
from wsisam_qupath_training.feature_cache import FeatureCache, cache_key, fill_cache
from wsisam_qupath_training.fields import Field, Truth
from wsisam_qupath_training.views import View, read_patches, see


@dataclass(frozen=True)
class Tissue:
    """A field of two rectangles, open, with three views of it."""

    field: Field
    slide: Slide
    views: tuple[View, ...]

    def fill(self, folder: Path, backend: FormulaEncoder) -> FeatureCache:
        return fill_cache(
            folder, backend, PLAIN_BASE, [self.field], [self.slide], self.views, PLAIN_VIEWS
        )

    def key(self, backend: str = "formula", least_mask_px: int = 48) -> str:
        settings = PLAIN_VIEWS.model_copy(update={"least_mask_px": least_mask_px})
        return cache_key(PLAIN_BASE, backend, [self.field], [self.slide], self.views, settings)


@contextmanager
def opened(folder: Path) -> Iterator[Tissue]:
    field = make_field(folder)
    with sampled(field, 3) as (slide, views):
        yield Tissue(field, slide, views)


@pytest.fixture
def tissue(tmp_path: Path) -> Iterator[Tissue]:
    with opened(tmp_path) as found:
        yield found


def test_a_view_comes_back_as_it_was_encoded_and_seen(tissue: Tissue, tmp_path: Path) -> None:
    cache = tissue.fill(tmp_path / "features", FormulaEncoder())

    assert cache.usable.tolist() == [0, 1, 2]
    view = cache.view(1)
    encoded = FormulaEncoder().encode(read_patches(tissue.slide, tissue.views[1]))
    assert np.array_equal(view.hr_tokens, encoded.tokens[0].astype(np.float16))
    assert np.array_equal(view.lr_early, encoded.early[1].astype(np.float16))
    seen = see(tissue.field, tissue.views[1], PLAIN_VIEWS)
    for name, wanted in vars(seen).items():
        assert np.array_equal(getattr(view.truth, name), wanted), name


def test_no_view_is_encoded_twice(tissue: Tissue, tmp_path: Path) -> None:
    first, second = FormulaEncoder(), FormulaEncoder()

    tissue.fill(tmp_path / "features", first)
    tissue.fill(tmp_path / "features", second)

    assert (first.encoded, second.encoded) == (6, 0)


def test_an_interrupted_filling_goes_on(tissue: Tissue, tmp_path: Path) -> None:
    rest = FormulaEncoder()

    with pytest.raises(KeyboardInterrupt):
        tissue.fill(tmp_path / "features", FormulaEncoder(fails_after=2))
    cache = tissue.fill(tmp_path / "features", rest)

    assert rest.encoded == 4
    whole = tissue.fill(tmp_path / "others", FormulaEncoder())
    for index in range(3):
        ours, theirs = cache.view(index), whole.view(index)
        assert np.array_equal(ours.hr_tokens, theirs.hr_tokens)
        assert np.array_equal(ours.truth.hr_masks, theirs.truth.hr_masks)


def test_a_view_without_objects_is_neither_encoded_nor_used(tissue: Tissue, tmp_path: Path) -> None:
    corner = replace(tissue.views[0], pair=PatchPair(20, 20, 0.05, 256, MPP))
    backend = FormulaEncoder()

    cache = replace(tissue, views=(corner,)).fill(tmp_path / "features", backend)

    assert (len(cache), cache.usable.tolist(), backend.encoded) == (1, [], 0)


def test_a_key_stays_the_same_for_a_copy_with_its_date(tissue: Tissue, tmp_path: Path) -> None:
    copied = make_field(tmp_path / "copy")
    shutil.copystat(tissue.slide.location, copied.slide.location)

    with copied.slide.open() as slide:
        assert replace(tissue, slide=slide).key() == tissue.key()


def test_a_key_is_another_when_the_file_was_written_again(tissue: Tissue) -> None:
    path = Path(tissue.slide.location)
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))

    with tissue.field.slide.open() as again:
        assert replace(tissue, slide=again).key() != tissue.key()


def test_a_key_depends_on_all_that_the_content_depends_on(tissue: Tissue, tmp_path: Path) -> None:
    moved = Truth("1", shapely.affinity.translate(SQUARE, 1), "gland")
    fields = {
        "truth": replace(tissue.field, truths=(moved, tissue.field.truths[1])),
        "region": replace(tissue.field, l0_complete=shapely.box(0, 0, 200, 300)),
    }
    pixels = make_field(tmp_path / "other", outlines=(TALL,), class_names=("gland",))
    with pixels.slide.open() as slide:
        keys = {
            "itself": tissue.key(),
            "slide": replace(tissue, slide=slide).key(),
            "views": replace(tissue, views=tissue.views[:2]).key(),
            "backend": tissue.key(backend="formula, bf16"),
            "settings": tissue.key(least_mask_px=49),
            **{name: replace(tissue, field=field).key() for name, field in fields.items()},
        }

    assert len(set(keys.values())) == len(keys), keys


def test_a_full_disk_is_told_before_anything_is_encoded(tissue: Tissue, tmp_path: Path) -> None:
    backend = FormulaEncoder()

    with small_disk(tmp_path, 1024) as disk:
        with pytest.raises(OutputError, match=r"cannot be kept in .* Make room there"):
            tissue.fill(disk / "features", backend)
        left = [path.name for path in (disk / "features").iterdir()]

    assert (backend.encoded, left) == (0, [])
