"""The same outline, whichever way the pixels come: by slide reference, or sent by the client."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from fixtures.command_line import GLAND, LARGE_GLAND, Feature, rectangle
from fixtures.segmenting import BOX, LARGE, features, iou
from fixtures.servers import (
    SIDE_PX,
    Client,
    Json,
    asked,
    client_of,
    json_of,
    problem_name,
    sent_regions,
)
from wsisam_qupath.geojson import prompts_from_geojson, to_feature
from wsisam_qupath.geometry import Box
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.inference.segmenter import Segmenter
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.prompts import Prompt
from wsisam_qupath.prompts.results import Result
from wsisam_qupath.slide import Slide, open_slide

IOU_MIN = 0.98


def by_engine(segmenter: Segmenter, slide: Slide, drawn: list[Feature]) -> list[Feature]:
    """What the ``segment`` command writes."""
    planner = segmenter.planner(slide, OutlineOptions())

    def hr_l0_box_of(prompt: Prompt) -> Box:
        return planner.pair(prompt).hr_l0_box

    prompts = prompts_from_geojson(drawn, hr_l0_box_of=hr_l0_box_of).prompts
    answers = segmenter.segment(slide, prompts)
    return [to_feature(one, "detection") for one in answers if isinstance(one, Result)]


def with_pixels(client: Client, slide: Slide, body: Json) -> list[Feature]:
    """What a client does whose slide the server cannot read."""
    body = {**body, "slide": {**body["slide"], "uri": "file:/elsewhere/slide.svs"}}
    refused = client.segment({**body, "on_unreadable": "regions"})
    assert problem_name(refused) == "pixels-needed"
    regions = sent_regions(slide, json_of(refused)["regions"])
    return features(client, {**body, "regions": regions})


def test_a_slide_reference_gives_what_the_command_gives(
    client: Client, segmenter: Segmenter, slide: Slide, tissue_path: Path
) -> None:
    drawn = [BOX, LARGE]

    assert features(client, asked(tissue_path, drawn)) == by_engine(segmenter, slide, drawn)


OBJECTS = (GLAND, LARGE_GLAND, (272, 0, 388, 198), (479, 30, 490, 65))
SHIFTS = st.tuples(*[st.floats(-4, 4)] * 4)


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)
@given(drawn=st.sampled_from(OBJECTS), shift=SHIFTS, mpp=st.sampled_from([0.5, 0.3]))
def test_pixels_give_the_outlines_that_the_slide_gives(
    client: Client,
    segmenter: Segmenter,
    tissue_path: Path,
    drawn: tuple[float, ...],
    shift: tuple[float, ...],
    mpp: float,
) -> None:
    x0, y0, x1, y1 = (min(max(a + b, 0), SIDE_PX) for a, b in zip(drawn, shift, strict=True))
    prompts = [rectangle("box", (x0, y0, x1, y1))]
    body = asked(tissue_path, prompts)
    body["slide"] |= {"mpp_x": mpp, "mpp_y": mpp}

    with open_slide(tissue_path, mpp=mpp) as slide:
        (expected,) = by_engine(segmenter, slide, prompts)
        (sent,) = with_pixels(client, slide, body)
    (referred,) = features(client, body)

    assert iou(expected, sent) >= IOU_MIN
    assert referred == expected


@pytest.mark.parametrize("drawn", OBJECTS[:3])
def test_of_a_slide_without_coarser_levels_they_do_so_too(
    client: Client,
    segmenter: Segmenter,
    tissue: ImageArray,
    tmp_path: Path,
    drawn: tuple[float, float, float, float],
) -> None:
    Image.fromarray(tissue).save(tmp_path / "tissue.png")
    prompts = [rectangle("box", drawn)]
    body = asked("file:/elsewhere/slide.svs", prompts)
    body["slide"] |= {"mpp_x": 0.2, "mpp_y": 0.2, "downsamples": [1]}

    with open_slide(tmp_path / "tissue.png", mpp=0.2) as slide:
        (expected,) = by_engine(segmenter, slide, prompts)
        (sent,) = with_pixels(client, slide, body)

    assert iou(expected, sent) >= IOU_MIN


def test_pixels_that_are_finer_than_asked_for_do_too(
    client: Client, slide: Slide, tissue_path: Path, answer_to_box: Feature
) -> None:
    whole = {"x": 0, "y": 0, "width": SIDE_PX, "height": SIDE_PX}
    whole |= {"width_px": SIDE_PX, "height_px": SIDE_PX}

    (feature,) = features(
        client, asked("https://far/slide", [BOX], regions=sent_regions(slide, [whole]))
    )

    assert iou(feature, answer_to_box) >= IOU_MIN


@pytest.mark.parametrize("side", [0.3, 0.5])
def test_pixels_that_are_missing_or_too_coarse_are_asked_for(
    client: Client, slide: Slide, tissue_path: Path, side: float
) -> None:
    part = {"x": 0, "y": 0, "width": SIDE_PX, "height": SIDE_PX}
    part |= {"width_px": round(side * 256), "height_px": round(side * 256)}

    answer = client.segment(asked("x", [BOX], regions=sent_regions(slide, [part])))

    assert problem_name(answer) == "pixels-needed"
    (needed,) = json_of(answer)["regions"]
    assert needed["x"] + needed["width"] <= SIDE_PX
    assert needed["width_px"] <= needed["width"]


def test_an_adapter_that_reads_both_patches_asks_for_both(wsi_torch: Predictor) -> None:
    both = client_of(Segmenter(wsi_torch), slides=[Path.cwd()])
    body = asked("file:/elsewhere/slide.svs", [BOX])

    refused = both.segment({**body, "on_unreadable": "regions"})

    hr, lr = json_of(refused)["regions"]
    assert lr["width"] > hr["width"]


def test_pixels_sent_again_are_found_in_the_cache(
    client: Client, segmenter: Segmenter, slide: Slide, tissue_path: Path
) -> None:
    drawn = [rectangle("new", (30, 300, 150, 420))]
    with_pixels(client, slide, asked(tissue_path, drawn))
    before = segmenter.tally.pairs_embedded

    with_pixels(client, slide, asked(tissue_path, drawn))

    assert segmenter.tally.pairs_embedded == before
