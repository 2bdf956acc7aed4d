"""Slide and prompts in, outlines out: planning, cache, threads, and what a result says."""

import multiprocessing
import os
import pickle
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.models import PLAIN_BASE, card, load_openvino, routed_to
from wsisam_qupath import (
    Box,
    Empty,
    ModelSpec,
    OutlineOptions,
    Prompt,
    Result,
    Segmenter,
    SegmentTask,
    Slide,
    __version__,
    open_slide,
    run_task,
)
from wsisam_qupath.errors import OptionError, SlideError
from wsisam_qupath.geometry import PatchPair
from wsisam_qupath.inference.backends.openvino_backend import OpenVinoBackend
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.model.adapter import write_adapter
from wsisam_qupath.model.card import DecoderCard, Route
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath.slide.pyramid import write_pyramid

pytestmark = pytest.mark.slow

GLAND = Prompt("gland", l0_box=Box(248, 298, 392, 510))
LARGE = Prompt("large", l0_box=Box(0, 0, 280, 266))
NUCLEUS = Prompt("nucleus", l0_box=Box(479, 30, 490, 65))
ALL = (GLAND, LARGE, NUCLEUS)


@pytest.fixture
def segmenter(plain_openvino: Predictor) -> Segmenter:
    return Segmenter(plain_openvino)


def only_result(segmenter: Segmenter, slide: Slide, prompt: Prompt) -> Result:
    (answer,) = segmenter.segment(slide, [prompt])
    assert isinstance(answer, Result)
    return answer


def wkb(answers: object) -> dict[str, bytes]:
    assert isinstance(answers, list)
    return {a.prompt.id: a.polygon.wkb for a in answers if isinstance(a, Result)}


def test_a_result_tells_its_object_and_where_it_comes_from(
    segmenter: Segmenter, tissue_slide: Slide
) -> None:
    result = only_result(segmenter, tissue_slide, GLAND)

    assert result.prompt is GLAND
    assert result.polygon.is_valid
    assert result.area_um2 == pytest.approx(result.polygon.area * 0.25, rel=2e-3)
    x0, y0, x1, y1 = result.polygon.bounds
    assert np.abs(np.array([x0 - 248, y0 - 298, x1 - 392, y1 - 510])).max() < 12
    assert 0.8 < result.predicted_iou <= 1.1
    assert 0.8 < result.stability_score <= 1.0
    provenance = result.provenance
    assert (provenance.base, provenance.base_sha256) == (PLAIN_BASE.name, PLAIN_BASE.sha256)
    assert (provenance.adapter, provenance.lr_mpp) == (None, None)
    assert (provenance.hr_mpp, provenance.version) == (1.0, __version__)


def test_an_adapter_with_wsi_sam_names_itself_and_the_lr_scale(
    wsi_openvino: Predictor, tissue_slide: Slide
) -> None:
    (answer,) = Segmenter(wsi_openvino).segment(
        tissue_slide, [GLAND], OutlineOptions(min_area_um2=0)
    )

    if isinstance(answer, Empty):
        pytest.skip("these random numbers see no object")
    adapter = wsi_openvino.adapter
    assert adapter is not None
    assert answer.provenance.adapter == "random"
    assert answer.provenance.adapter_sha256 == adapter.sha256
    assert answer.provenance.lr_mpp == 2 * answer.provenance.hr_mpp


def test_answers_come_before_all_pairs_are_embedded(
    segmenter: Segmenter, tissue_slide: Slide
) -> None:
    answers = segmenter.segment(tissue_slide, ALL)

    first = next(answers)

    assert first.prompt is GLAND
    assert segmenter.tally.pairs_embedded == 1
    answers.close()


def test_as_many_pairs_are_embedded_as_are_distinct(
    segmenter: Segmenter, tissue_slide: Slide
) -> None:
    near = [replace(GLAND, id=str(i), l0_box=Box(248 - i, 298, 392 - i, 510)) for i in range(4)]
    planner = segmenter.planner(tissue_slide, OutlineOptions())
    distinct = {planner.pair(prompt) for prompt in (*near, *ALL)}

    answers = list(segmenter.segment(tissue_slide, [*near, *ALL]))

    assert len(answers) == 7
    assert segmenter.tally.pairs_embedded == len(distinct) == 3
    list(segmenter.segment(tissue_slide, [*near, *ALL]))
    assert segmenter.tally.pairs_embedded == 3


@pytest.fixture(scope="module")
def pair_predictor(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """The base on both patches for a point, and on the HR patch alone for all else."""
    path = tmp_path_factory.mktemp("pair") / "pair.safetensors"
    cards = {"alone": DecoderCard(architecture="sam")}
    cards["pair"] = DecoderCard(architecture="sam", both_patches=True)
    routes = routed_to("alone") | {PromptKind.POINT: Route(decoder="pair")}
    write_adapter(path, card(cards, routes), {})
    return load_openvino(path)


def test_the_lr_patch_is_read_for_prompts_that_need_it_alone(
    pair_predictor: Predictor, tissue_slide: Slide
) -> None:
    segmenter = Segmenter(pair_predictor)
    click = Prompt("click", l0_positives=((320, 404),))
    box = Prompt("box", l0_box=Box(260, 340, 380, 470))
    planner = segmenter.planner(tissue_slide, OutlineOptions())
    assert planner.pair(click) == planner.pair(box)
    pair = planner.pair(box)

    first = wkb(list(segmenter.segment(tissue_slide, [box])))
    (alone,) = segmenter._embeddings.values()
    then = wkb(list(segmenter.segment(tissue_slide, [click, box])))
    (both,) = segmenter._embeddings.values()

    assert segmenter.plan_patches(tissue_slide, [box], OutlineOptions()) == {pair: 1}
    assert segmenter.plan_patches(tissue_slide, [box, click], OutlineOptions()) == {pair: 2}
    assert (len(alone.patches), len(both.patches)) == (1, 2)
    assert both.patches[0] is alone.patches[0]
    fresh = wkb(list(Segmenter(pair_predictor).segment(tissue_slide, [click, box])))
    assert then == fresh
    assert first["box"] == fresh["box"]


def test_the_cache_holds_no_more_bytes_than_it_may(
    plain_openvino: Predictor, tissue_slide: Slide
) -> None:
    one_embedding = 4096 * 256 * 4
    segmenter = Segmenter(plain_openvino, cache_bytes=one_embedding)

    for _ in range(2):
        list(segmenter.segment(tissue_slide, [GLAND, LARGE]))

    assert segmenter.tally.pairs_embedded == 4
    assert segmenter._embeddings.currsize <= one_embedding


def test_an_answer_does_not_depend_on_its_neighbours(
    segmenter: Segmenter, plain_openvino: Predictor, tissue_slide: Slide
) -> None:
    together = wkb(list(segmenter.segment(tissue_slide, ALL)))

    for prompt in reversed(ALL):
        alone = only_result(Segmenter(plain_openvino), tissue_slide, prompt)
        assert alone.polygon.wkb == together[prompt.id]


@pytest.mark.walk
def test_many_threads_get_the_answers_of_one(
    segmenter: Segmenter, plain_openvino: Predictor, tissue_slide: Slide
) -> None:
    expected = wkb(list(Segmenter(plain_openvino).segment(tissue_slide, ALL)))

    with ThreadPoolExecutor(8) as threads:
        runs = list(threads.map(lambda _: list(segmenter.segment(tissue_slide, ALL)), range(8)))

    assert all(wkb(run) == expected for run in runs)
    assert segmenter.tally.pairs_embedded == 3


class InTwos(OpenVinoBackend):
    """Takes two pairs at a time, as a GPU takes eight."""

    pairs_at_once = 2


def test_pairs_embedded_together_get_the_answers_of_one_by_one(
    segmenter: Segmenter, cache: Path, tissue_slide: Slide
) -> None:
    def never(folder: Path) -> None:
        raise AssertionError(f"{folder} is made already")

    backend = InTwos(PLAIN_BASE, None, cache / "openvino", never)
    in_twos = Segmenter(Predictor(backend, PLAIN_BASE, None))
    answers = in_twos.segment(tissue_slide, ALL)

    first = next(answers)

    assert in_twos.tally.pairs_embedded == 2
    assert wkb([first, *answers]) == wkb(list(segmenter.segment(tissue_slide, ALL)))
    assert in_twos.tally.pairs_embedded == 3


def test_pairs_to_embed_are_asked_for_a_few_ahead(
    segmenter: Segmenter, tissue_slide: Slide
) -> None:
    planner = segmenter.planner(tissue_slide, OutlineOptions())
    asked_for = []

    def ask() -> Iterator[PatchPair]:
        for number in range(8):
            asked_for.append(number)
            yield planner.place_pair((64.0 * number, 256.0), 1.0)

    with closing(segmenter.embed_pairs(tissue_slide, ask())) as embedded:
        next(embedded)

    assert len(asked_for) <= 3


def test_closing_the_iterator_stops_the_work_and_its_threads(
    segmenter: Segmenter, tissue_slide: Slide
) -> None:
    answers = segmenter.segment(tissue_slide, ALL)
    next(answers)

    answers.close()

    assert segmenter.tally.pairs_embedded == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("slide-reader")]


def test_ids_are_the_same_again_and_change_with_what_changes_the_outline(
    segmenter: Segmenter, tissue_slide: Slide
) -> None:
    first = only_result(segmenter, tissue_slide, GLAND)
    again = only_result(segmenter, tissue_slide, GLAND)
    (other,) = segmenter.segment(tissue_slide, [GLAND], OutlineOptions(simplify_um=2.0))
    moved = only_result(segmenter, tissue_slide, replace(GLAND, l0_box=Box(250, 298, 392, 510)))

    assert isinstance(other, Result)
    assert first.id == again.id
    assert len({first.id, other.id, moved.id}) == 3


def test_a_box_as_large_as_a_slide_is_answered(segmenter: Segmenter, tissue_slide: Slide) -> None:
    whole = Prompt("whole", l0_box=tissue_slide.l0_box)

    (answer,) = segmenter.segment(tissue_slide, [whole])

    assert answer.prompt is whole
    hr_mpp = segmenter.planner(tissue_slide, OutlineOptions()).pair(whole).hr_mpp
    assert 256 * hr_mpp * 0.65 >= 512 * tissue_slide.mpp.x


def test_an_outline_ends_where_the_slide_ends(segmenter: Segmenter, tissue_slide: Slide) -> None:
    over = Prompt("over the edge", l0_box=Box(-1000, -1000, 1500, 1500))

    result = only_result(segmenter, tissue_slide, over)

    x0, y0, x1, y1 = result.polygon.bounds
    assert min(x0, y0) >= 0
    assert max(x1, y1) <= 512


def test_glass_without_tissue_is_answered_somehow(segmenter: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "glass.tiff"
    write_pyramid(path, np.full((600, 600, 3), 255, np.uint8), mpp=0.5)

    with open_slide(path) as slide:
        answers = list(segmenter.segment(slide, [Prompt("glass", l0_box=Box(100, 100, 300, 300))]))

    assert len(answers) == 1


def test_an_object_below_the_least_area_is_said_to_be_too_small(
    segmenter: Segmenter, tissue_slide: Slide
) -> None:
    (answer,) = segmenter.segment(tissue_slide, [GLAND], OutlineOptions(min_area_um2=1e9))

    assert isinstance(answer, Empty)
    assert answer.reason == (
        "what the model sees there is smaller than 1e+09 µm², the minimum area; "
        "is the pixel size of the image right?"
    )


def test_a_slide_that_breaks_while_it_is_read_says_so(
    segmenter: Segmenter, tmp_path: Path, tissue_path: Path
) -> None:
    path = tmp_path / "breaks.tif"
    shutil.copy(tissue_path, path)
    with open_slide(path) as slide:
        os.truncate(path, 3000)  # as when a network drive goes away
        with pytest.raises(SlideError, match=r"breaks\.tif"):
            list(segmenter.segment(slide, [LARGE]))


@pytest.mark.walk
def test_a_job_is_answered_in_another_process_as_in_this_one(
    cache: Path, tissue_slide: Slide
) -> None:
    task = SegmentTask(tissue_slide.reference, ALL, ModelSpec(device="cpu", backend="openvino"))

    assert pickle.loads(pickle.dumps(task)) == task
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as processes:
        elsewhere = processes.submit(run_task, task).result(timeout=300)
    here = run_task(task)

    assert elsewhere == here
    assert [(answer.prompt_id, answer.feature is None) for answer in here] == [
        ("gland", False),
        ("large", False),
        ("nucleus", False),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"object_size_um": 0.0}, "object_size_um: 0 is not a positive size"),
        ({"object_size_um": float("nan")}, "object_size_um: nan is not a positive size"),
        ({"simplify_um": -1.0}, "simplify_um: -1 is out of range"),
        ({"min_area_um2": float("inf")}, "min_area_um2: inf is out of range"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        OutlineOptions(**options)


def test_an_answer_that_runs_into_its_patchs_edge_is_asked_for_on_a_coarser_pair(
    tmp_path: Path,
) -> None:
    y, x = np.mgrid[0:1600, 0:1600]
    inside = np.hypot(x - 800, y - 800) < 500
    noise = np.random.default_rng(0).integers(-12, 13, (1600, 1600, 1))
    rgb = np.where(inside[..., None], (190, 90, 150), (242, 240, 243)) + noise
    path = tmp_path / "disc.tif"
    write_pyramid(path, np.clip(rgb, 0, 255).astype(np.uint8), mpp=1.0)
    segmenter = Segmenter(resolve(ModelSpec(device="cpu", backend="openvino")).load())
    clicks = Prompt("disc", l0_positives=((800, 800), (900, 700), (700, 900)))

    with open_slide(path) as slide:
        planned = segmenter.planner(slide, OutlineOptions()).pair(clicks)
        result = only_result(segmenter, slide, clicks)

    answered = replace(planned, hr_mpp=result.provenance.hr_mpp)
    x0, y0, x1, y1 = result.polygon.bounds
    assert answered.hr_mpp in {planned.coarser.hr_mpp, planned.coarser.coarser.hr_mpp}
    assert answered.hr_l0_box.x0 < x0 < x1 < answered.hr_l0_box.x1
    assert answered.hr_l0_box.y0 < y0 < y1 < answered.hr_l0_box.y1
