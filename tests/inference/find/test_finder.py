"""Objects like an example are found once each, whole, and the same again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

from fixtures.models import tissue_rgb
from wsisam_qupath import (
    OutlineOptions,
    PathClass,
    Plane,
    Prompt,
    Result,
    Search,
    Segmenter,
    Slide,
    find_objects,
    load_segmenter,
    open_slide,
)
from wsisam_qupath.errors import PromptError
from wsisam_qupath.geometry import Box
from wsisam_qupath.inference.find import count_tiles
from wsisam_qupath.inference.find.overlaps import FoundOutlines
from wsisam_qupath.inference.find.search import cut_to_slide
from wsisam_qupath.slide.pyramid import write_pyramid

pytestmark = pytest.mark.slow

GLAND = Prompt("gland", l0_box=Box(248, 298, 392, 510), path_class=PathClass("gland"))
LEFT = shapely.box(0, 0, 256, 512)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return load_segmenter()


@pytest.fixture(scope="module")
def slide(tissue_path: object) -> Iterator[Slide]:
    with open_slide(str(tissue_path)) as opened:
        yield opened


@pytest.fixture(scope="module")
def found(segmenter: Segmenter, slide: Slide) -> list[Result]:
    return list(find_objects(segmenter, slide, Search((GLAND,))))


def geometry(results: list[Result]) -> set[bytes]:
    return {one.polygon.wkb for one in results}


def test_other_glands_are_found_and_not_the_example(found: list[Result]) -> None:
    (example,) = [shapely.box(*GLAND.l0_box.corners().ravel())] if GLAND.l0_box else []

    assert len(found) >= 3
    assert all(one.polygon.is_valid and one.predicted_iou >= 0.75 for one in found)
    assert all(one.polygon.intersection(example).area < 0.2 * example.area for one in found)


def test_a_found_object_tells_its_class_and_where_it_comes_from(found: list[Result]) -> None:
    assert {one.prompt.path_class for one in found} == {PathClass("gland")}
    assert len({one.id for one in found}) == len(found)
    assert all(one.provenance.adapter == "tissue-lite-medsam" for one in found)
    assert all(one.provenance.hr_mpp >= 1.0 for one in found)


def test_no_object_is_found_twice(found: list[Result]) -> None:
    seen = FoundOutlines(100.0)
    for one in found:
        assert not seen.has(one.polygon)
        seen.add(one.polygon)


def test_the_same_search_finds_the_same(
    segmenter: Segmenter, slide: Slide, found: list[Result]
) -> None:
    again = list(find_objects(segmenter, slide, Search((GLAND,))))

    assert geometry(again) == geometry(found)
    assert [one.id for one in again] == [one.id for one in found]


def test_a_search_that_was_stopped_goes_on(
    segmenter: Segmenter, slide: Slide, found: list[Result]
) -> None:
    tiles: list[tuple[int, int]] = []
    search = find_objects(
        segmenter, slide, Search((GLAND,)), on_tile=lambda *told: tiles.append(told)
    )
    early = []
    for one in search:
        early.append(one)
        if tiles:
            break
    search.close()
    done = tiles[-1][0]

    late = list(
        find_objects(
            segmenter,
            slide,
            Search((GLAND,)),
            known=[one.polygon for one in early],
            tiles_done=done,
        )
    )

    assert geometry(early + late) == geometry(found)


def test_glass_is_looked_for_as_the_search_comes_to_it(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    scene = np.full((512, 2560, 3), 255, np.uint8)
    scene[:, :512] = tissue_rgb()
    write_pyramid(tmp_path / "scene.tif", scene, mpp=0.5)
    told: list[tuple[int, int]] = []

    with open_slide(tmp_path / "scene.tif") as slide:
        search = Search((GLAND,))
        tiles = count_tiles(segmenter.planner(slide, OutlineOptions()), slide.l0_box, search)
        list(find_objects(segmenter, slide, search, on_tile=lambda *some: told.append(some)))

    first, last = told[0], told[-1]
    assert first[0] == 1
    assert len(told) < first[1] <= tiles
    assert last == (len(told), len(told))


def test_only_what_lies_in_the_region_is_found(
    segmenter: Segmenter, slide: Slide, found: list[Result]
) -> None:
    inside = list(find_objects(segmenter, slide, Search((GLAND,), l0_region=LEFT)))

    assert 0 < len(inside) < len(found)
    assert all(LEFT.intersects(one.polygon.representative_point()) for one in inside)


def test_what_is_not_wanted_is_left_out(
    segmenter: Segmenter, slide: Slide, found: list[Result]
) -> None:
    wrong = found[0]
    negative = Prompt("wrong", l0_outline=wrong.polygon)

    again = list(find_objects(segmenter, slide, Search((GLAND,), (negative,))))

    known = FoundOutlines(100.0)
    known.add(wrong.polygon)
    assert not any(known.has(one.polygon) for one in again)


def test_a_higher_score_finds_only_what_is_surer(
    segmenter: Segmenter, slide: Slide, found: list[Result]
) -> None:
    least = sorted(one.predicted_iou for one in found)[len(found) // 2]

    fewer = list(find_objects(segmenter, slide, Search((GLAND,), min_score=least)))

    assert 0 < len(fewer) < len(found)
    assert all(one.predicted_iou >= least for one in fewer)


@pytest.mark.walk
def test_everything_of_a_size_is_found_without_examples(segmenter: Segmenter, slide: Slide) -> None:
    options = OutlineOptions(object_size_um=100)

    objects = list(find_objects(segmenter, slide, Search(), options))

    assert len(objects) >= 3
    assert all(one.prompt.path_class is None for one in objects)


def test_areas_beyond_the_slide_are_refused(segmenter: Segmenter, slide: Slide) -> None:
    beyond = Search((GLAND,), l0_region=shapely.box(5000, 5000, 6000, 6000))

    with pytest.raises(PromptError, match="lie outside of the slide: draw them on it"):
        list(find_objects(segmenter, slide, beyond))


def test_an_area_without_end_is_the_whole_slide(
    segmenter: Segmenter, slide: Slide, found: list[Result]
) -> None:
    endless = Search((GLAND,), l0_region=shapely.box(-1e9, -1e9, 1e9, 1e9))

    assert geometry(list(find_objects(segmenter, slide, endless))) == geometry(found)


@pytest.mark.parametrize("size_um", [1e-9, 1.9, 363.0, 1e9])
def test_sizes_that_no_object_of_the_slide_has_are_refused(
    segmenter: Segmenter, slide: Slide, size_um: float
) -> None:
    options = OutlineOptions(object_size_um=size_um)

    with pytest.raises(PromptError, match="choose some of 2 to 362 µm"):
        list(find_objects(segmenter, slide, Search(), options))


def test_what_is_found_lies_on_the_plane_of_the_examples(
    segmenter: Segmenter, slide: Slide
) -> None:
    deep = replace(GLAND, plane=Plane(z=2, t=1))

    found = list(find_objects(segmenter, slide, Search((deep,))))

    assert {one.prompt.plane for one in found} == {Plane(z=2, t=1)}
    with pytest.raises(PromptError, match="lie on several planes"):
        Search((deep, GLAND))


def test_an_example_or_negative_of_any_shape_is_learned_from(
    segmenter: Segmenter, slide: Slide, found: list[Result]
) -> None:
    ring = shapely.Point(256, 256).buffer(255).difference(shapely.Point(256, 256).buffer(250))

    unlike = Search((GLAND,), (Prompt("ring", l0_outline=ring),))

    assert list(find_objects(segmenter, slide, unlike))


def test_without_an_example_and_a_size_nothing_is_looked_for(
    segmenter: Segmenter, slide: Slide
) -> None:
    with pytest.raises(PromptError, match="nothing to look for: give an example"):
        list(find_objects(segmenter, slide, Search()))


def test_too_many_examples_are_refused() -> None:
    with pytest.raises(PromptError, match="11 examples are too many: choose up to 10"):
        Search(tuple(Prompt(f"{n}", l0_positives=((1.0, 1.0),)) for n in range(11)))


def test_an_example_on_glass_is_named(segmenter: Segmenter, slide: Slide) -> None:
    nothing = Prompt("here", l0_box=Box(2000, 2000, 2100, 2100))

    with pytest.raises(PromptError, match="The example here cannot be outlined"):
        list(find_objects(segmenter, slide, Search((nothing,))))


def test_an_example_that_lies_beside_the_slide_is_named(segmenter: Segmenter, slide: Slide) -> None:
    corner = shapely.Polygon([(-90, -90), (9, -90), (9, -80), (-80, -80), (-80, 9), (-90, 9)])

    with pytest.raises(PromptError, match="The example here lies outside of the slide"):
        list(find_objects(segmenter, slide, Search((Prompt("here", l0_outline=corner),))))


def test_of_an_outline_counts_what_lies_on_the_slide(slide: Slide) -> None:
    inside = shapely.box(10, 10, 20, 30)

    assert cut_to_slide(inside, slide.l0_box) is inside
    assert cut_to_slide(shapely.box(-90, 10, 20, 30), slide.l0_box).bounds == (0, 10, 20, 30)
    assert cut_to_slide(shapely.box(-90, 10, -20, 30), slide.l0_box).is_empty


def test_a_negative_at_which_there_is_no_object_says_nothing(
    segmenter: Segmenter, slide: Slide, found: list[Result]
) -> None:
    nowhere = Prompt("nowhere", l0_positives=((2000.0, 2000.0),))
    beside = Prompt("beside", l0_outline=shapely.box(-90, -90, -20, -20))

    again = list(find_objects(segmenter, slide, Search((GLAND,), (nowhere, beside))))

    assert geometry(again) == geometry(found)
