from __future__ import annotations

import json
import re
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from shapely.geometry import shape

from fixtures.command_line import (
    GLAND,
    LARGE_GLAND,
    Answer,
    Feature,
    annotation,
    features_of,
    rectangle,
    run,
    vertices,
    write_prompts,
)
from fixtures.models import tissue_rgb
from wsisam_qupath.cli.segment_run import Outcome, SegmentRequest, run_segment
from wsisam_qupath.options import ModelSpec, OutlineOptions

pytestmark = pytest.mark.slow

SIDE_PX = 512
ROUGH_OUTLINE = [[[255, 310], [320, 290], [375, 320], [400, 420], [360, 512], [240, 400]]]
LUMEN = (272, 0, 388, 198)
NUCLEUS = (479, 30, 490, 65)
ON_PLANE = {"c": -1, "z": 3, "t": 2}


def segment(tissue_path: Path, folder: Path, **wishes: Any) -> tuple[Outcome, list[Feature]]:
    """What ``segment -o`` does in this process, and what it wrote."""
    request = replace(SegmentRequest(str(tissue_path), output=folder / "out.geojson"), **wishes)
    outcome = run_segment(request)
    assert request.output is not None
    return outcome, features_of(request.output)


@pytest.fixture(scope="module")
def mixed(tissue_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Answer]:
    """Prompts of every kind, the outlines, and what the command said: a file in, a file out."""
    folder = tmp_path_factory.mktemp("Größe 10 µm")
    slide = folder / "Gewebe, gefärbt.tif"
    shutil.copy(tissue_path, slide)
    on_plane = rectangle("in a stack", LUMEN)
    on_plane["geometry"]["plane"] = ON_PLANE
    prompts = write_prompts(
        folder / "prömpts.geojson",
        [
            rectangle("far left", LARGE_GLAND, "Gland"),
            annotation("rough", "Polygon", ROUGH_OUTLINE, "Gland: Rough"),
            on_plane,
            rectangle("off the slide", (600, 600, 700, 700)),
            annotation("線", "LineString", [[0, 0], [50, 50]]),
            rectangle("near left", (10, 10, 270, 250)),
            annotation("click", "Point", [100, 100]),
            annotation("not there", "MultiPoint", [[150, 150]], "Ignore*"),
            rectangle("nucleus", NUCLEUS),
        ],
    )
    output = folder / "out put.geojson"
    # Relative paths, and a picture beside.
    answer = run(
        "segment", slide.name, prompts.name, "-o", output.name, "--overlay", "ü.png", cwd=folder
    )
    return folder, output, answer


# What is written


def test_outlines_come_one_a_prompt_in_the_order_of_the_prompts(
    mixed: tuple[Path, Path, Answer],
) -> None:
    _, output, answer = mixed

    named = [f["properties"]["metadata"]["wsisam_prompt_id"] for f in features_of(output)]
    assert answer.code == 0
    assert named == ["far left", "rough", "in a stack", "near left", "nucleus"]


UNTRUSTED = "1 prompt with points, which lite-medsam was never trained on"


def test_a_base_that_never_learned_points_is_not_trusted_with_them(tissue_path: Path) -> None:
    answer = run("segment", tissue_path, "--point", "366,150", "--adapter", "none")

    assert any(line.startswith(UNTRUSTED) for line in answer.words)


def test_the_adapter_that_is_used_without_a_word_knows_points(
    mixed: tuple[Path, Path, Answer],
) -> None:
    features = features_of(mixed[1])

    assert {f["properties"]["metadata"]["wsisam_adapter"] for f in features} == {
        "tissue-lite-medsam"
    }
    assert not any(UNTRUSTED in line for line in mixed[2].words)


def test_outlines_follow_the_conventions_of_qupath(mixed: tuple[Path, Path, Answer]) -> None:
    features = features_of(mixed[1])

    classes = [feature["properties"].get("classification") for feature in features]
    gland = {"name": "Gland", "color": [0, 122, 255]}
    rough = {"names": ["Gland", "Rough"], "color": [0, 122, 255]}
    assert classes == [gland, rough, None, None, None]
    for feature in features:
        assert feature["type"] == "Feature"
        assert str(uuid.UUID(feature["id"])) == feature["id"]
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        assert properties["isLocked"] is False
        assert list(properties["measurements"]) == ["Predicted IoU", "Stability score", "Area µm^2"]
        assert all(isinstance(value, str) for value in properties["metadata"].values())
        assert properties["metadata"]["wsisam_base"] == "lite-medsam"


def test_outlines_are_valid_and_in_level_0_pixels_to_two_decimals(
    mixed: tuple[Path, Path, Answer],
) -> None:
    for feature in features_of(mixed[1]):
        outline = shape(feature["geometry"])
        area_um2 = feature["properties"]["measurements"]["Area µm^2"]

        assert outline.is_valid
        assert outline.area * 0.5**2 == pytest.approx(area_um2, rel=1e-3)
        numbers = re.findall(r"\d+\.\d+", json.dumps(feature["geometry"]["coordinates"]))
        assert all(len(number.partition(".")[2]) <= 2 for number in numbers)


def test_outlines_lie_where_the_prompts_are(mixed: tuple[Path, Path, Answer]) -> None:
    large, rough, *_ = (shape(feature["geometry"]) for feature in features_of(mixed[1]))

    assert large.bounds == pytest.approx(LARGE_GLAND, abs=40)
    drawn = shape({"type": "Polygon", "coordinates": ROUGH_OUTLINE})
    assert rough.intersection(drawn).area / rough.union(drawn).area > 0.6


def test_planes_are_carried_over(mixed: tuple[Path, Path, Answer]) -> None:
    planes = [feature["geometry"].get("plane") for feature in features_of(mixed[1])]

    assert planes == [None, None, ON_PLANE, None, None]


def test_what_is_left_out_is_named_with_its_reason(mixed: tuple[Path, Path, Answer]) -> None:
    words = mixed[2].words

    assert "Skipped off the slide: it lies outside of the slide." in words
    assert any(line.startswith("Skipped 線: a geometry of type LineString") for line in words)
    assert "5 prompts: 5 outlined, 0 empty; 2 skipped." in mixed[2].err


def test_with_a_file_nothing_is_on_stdout(mixed: tuple[Path, Path, Answer]) -> None:
    assert mixed[2].out == ""


def test_the_picture_differs_from_bare_tissue_where_the_outlines_are(
    mixed: tuple[Path, Path, Answer], tissue: np.ndarray
) -> None:
    with Image.open(mixed[0] / "ü.png") as image:
        assert image.format == "PNG"
        drawn = np.asarray(image)
    # With their margin, the prompts reach over the whole of the slide.
    assert drawn.shape == (800, 800, 3)
    bare = np.asarray(Image.fromarray(tissue).resize((800, 800), Image.Resampling.BILINEAR))

    change = np.abs(drawn.astype(int) - bare).max(axis=2)

    assert np.median(change[-80:, -80:]) <= 2  # no prompt there
    for feature in features_of(mixed[1])[:3]:
        outline = max(shapely.get_parts(shape(feature["geometry"])), key=shapely.area)
        along = [
            outline.exterior.interpolate(share, normalized=True) for share in np.arange(20) / 20
        ]
        seen = [
            change[min(int(p.y * 800 / 512), 799), min(int(p.x * 800 / 512), 799)] for p in along
        ]
        assert np.median(seen) > 40


def test_nothing_else_is_left_beside_the_results(mixed: tuple[Path, Path, Answer]) -> None:
    assert {path.name for path in mixed[0].iterdir()} == {
        "Gewebe, gefärbt.tif",
        "prömpts.geojson",
        "out put.geojson",
        "ü.png",
    }


# Streams


@pytest.fixture(scope="module")
def on_stdout(tissue_path: Path) -> Answer:
    return run("segment", tissue_path, "--box", "262,0,470,302")


def test_without_a_file_geojson_alone_is_on_stdout(on_stdout: Answer) -> None:
    document = json.loads(on_stdout.out)

    assert on_stdout.code == 0
    assert document["type"] == "FeatureCollection"
    assert len(document["features"]) == 1


def test_words_are_on_stderr(on_stdout: Answer) -> None:
    assert on_stdout.words[0].startswith(
        "1 prompt: 1 outlined, 0 empty; 0 skipped. 1 patch pair encoded by "
    )
    assert re.fullmatch(r"\d+\.\d\d s in all \(read .*\)\.", on_stdout.words[1])
    assert len(on_stdout.words) == 2


def test_a_dash_means_stdout_and_the_same_command_gives_the_same_bytes(
    tissue_path: Path, on_stdout: Answer, tmp_path: Path
) -> None:
    again = run("segment", tissue_path.as_uri(), "--box", "262,0,470,302", "-o", "-", cwd=tmp_path)

    assert again.out == on_stdout.out
    assert list(tmp_path.iterdir()) == []


# Options


@pytest.fixture(scope="module")
def gland(tissue_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Feature:
    """The outline of one gland with the options as they stand."""
    _, (feature,) = segment(tissue_path, tmp_path_factory.mktemp("gland"), boxes=(GLAND,))
    return feature


def test_simplify_leaves_out_vertices_and_names_another_result(
    tissue_path: Path, tmp_path: Path, gland: Feature
) -> None:
    _, (coarse,) = segment(
        tissue_path, tmp_path, boxes=(GLAND,), options=OutlineOptions(simplify_um=3.0)
    )

    assert vertices(coarse) < vertices(gland) / 2
    assert coarse["id"] != gland["id"]


def test_results_may_be_annotations(tissue_path: Path, tmp_path: Path, gland: Feature) -> None:
    _, (drawn,) = segment(
        tissue_path, tmp_path, boxes=(GLAND,), options=OutlineOptions(object_type="annotation")
    )

    assert drawn["properties"]["objectType"] == "annotation"
    assert drawn["geometry"] == gland["geometry"]


def test_what_is_smaller_than_min_area_is_nothing_and_named(
    tissue_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prompts = write_prompts(tmp_path / "p.geojson", [rectangle("gland [1]", GLAND)])

    outcome, features = segment(
        tissue_path, tmp_path, prompts=prompts, options=OutlineOptions(min_area_um2=1e6)
    )

    assert features == []
    assert [empty.id for empty in outcome.empty] == ["gland [1]"]
    out, err = capfd.readouterr()
    assert out == ""
    assert "Nothing at gland [1]: the model sees no object there." in err
    assert "1 prompt: 0 outlined, 1 empty; 0 skipped." in err


def test_negative_points_go_with_the_box_round_them(
    tissue_path: Path, tmp_path: Path, gland: Feature
) -> None:
    outcome, (carved,) = segment(
        tissue_path, tmp_path, boxes=(GLAND,), negatives=((320.0, 85.0), (362.0, 172.0))
    )

    (prompt,) = outcome.prompt_set.prompts
    assert prompt.l0_negatives == ((320.0, 85.0), (362.0, 172.0))
    assert carved["geometry"] != gland["geometry"]


def test_points_mark_one_object_together_or_one_each(tissue_path: Path, tmp_path: Path) -> None:
    points = ((366.0, 250.0), (420.0, 250.0), (300.0, 250.0))

    together, _ = segment(tissue_path, tmp_path, points=points)
    each, _ = segment(
        tissue_path, tmp_path, points=points, options=OutlineOptions(points_as="each")
    )

    assert [p.l0_positives for p in together.prompt_set.prompts] == [points]
    assert [p.l0_positives for p in each.prompt_set.prompts] == [(point,) for point in points]
    assert each.outlined + len(each.empty) == 3


def test_the_size_of_objects_sets_the_scale_at_which_points_are_answered(
    tissue_path: Path, tmp_path: Path
) -> None:
    scales = []
    for size_um in (700.0, 1000.0):
        _, (feature,) = segment(
            tissue_path,
            tmp_path,
            points=((90.0, 90.0),),
            options=OutlineOptions(object_size_um=size_um),
        )
        scales.append(float(feature["properties"]["metadata"]["wsisam_hr_mpp"]))

    # The first of 1, √2, 2, ... µm/px at which the object takes at most 0.65 of 256 px.
    assert scales == pytest.approx([4 * 2**0.5, 8])


def test_mpp_replaces_what_the_file_states(
    tissue_path: Path, tmp_path: Path, gland: Feature
) -> None:
    _, (feature,) = segment(tissue_path, tmp_path, boxes=(GLAND,), mpp=0.25)

    area_um2 = feature["properties"]["measurements"]["Area µm^2"]
    assert area_um2 == pytest.approx(shape(feature["geometry"]).area * 0.25**2, rel=1e-3)
    assert feature["id"] != gland["id"]


def test_a_picture_without_a_scale_is_segmented_with_mpp(
    tissue: np.ndarray, tmp_path: Path, gland: Feature
) -> None:
    picture = tmp_path / "picture.png"
    Image.fromarray(tissue).save(picture)

    _, (feature,) = segment(picture, tmp_path, boxes=(GLAND,), mpp=0.5)

    here, there = shape(feature["geometry"]), shape(gland["geometry"])
    assert here.intersection(there).area / here.union(there).area > 0.95


# Prompts


@pytest.mark.parametrize("form", ["list", "feature", "geometry"])
def test_every_form_that_qupath_writes_gives_the_same_outline(
    tissue_path: Path, tmp_path: Path, gland: Feature, form: str
) -> None:
    feature = rectangle("gland", GLAND)
    forms = {"list": [feature], "feature": feature, "geometry": feature["geometry"]}
    prompts = tmp_path / "p.geojson"
    prompts.write_text(json.dumps(forms[form]), encoding="utf-8")

    _, (outlined,) = segment(tissue_path, tmp_path, prompts=prompts)

    assert outlined["geometry"] == gland["geometry"]


def test_no_features_in_give_no_features_out(tissue_path: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.geojson", [])

    answer = run("segment", tissue_path, prompts)

    assert answer.code == 0
    assert json.loads(answer.out) == {"type": "FeatureCollection", "features": []}
    assert answer.words[0].startswith("0 prompts: 0 outlined, 0 empty; 0 skipped.")


def test_a_box_larger_than_the_slide_is_answered(tissue_path: Path, tmp_path: Path) -> None:
    everything = (-1e6, -1e6, 1e6, 1e6)

    outcome, _ = segment(tissue_path, tmp_path, boxes=((0, 0, SIDE_PX, SIDE_PX), everything))

    assert outcome.outlined + len(outcome.empty) == 2


def test_ids_that_come_twice_yield_two_results(tissue_path: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.geojson", [rectangle("twin", GLAND)] * 2)

    _, (first, second) = segment(tissue_path, tmp_path, prompts=prompts)

    assert first["geometry"] == second["geometry"]
    assert first["id"] != second["id"]
    assert first["properties"]["metadata"]["wsisam_prompt_id"] == "twin"


def test_of_very_many_that_are_left_out_only_the_first_are_named(
    tissue_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    off = [rectangle(f"off {number}", (600, 600, 700, 700)) for number in range(60)]
    prompts = write_prompts(tmp_path / "p.geojson", [*off, rectangle("gland", GLAND)])

    segment(tissue_path, tmp_path, prompts=prompts)

    named = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Skipped")]
    assert named[:50] == [f"Skipped off {n}: it lies outside of the slide." for n in range(50)]
    assert named[50:] == ["Skipped 10 more."]


# Adapters


def test_an_adapter_is_named_in_the_results(
    tissue_path: Path, tmp_path: Path, adapter_path: Path
) -> None:
    outcome, features = segment(
        tissue_path, tmp_path, boxes=(GLAND,), model=ModelSpec(adapter=adapter_path)
    )

    assert outcome.outlined + len(outcome.empty) == 1
    for feature in features:
        assert feature["properties"]["metadata"]["wsisam_adapter"] == "random"
        assert "wsisam_lr_mpp" in feature["properties"]["metadata"]


def test_strips_in_jpeg_are_read_as_stored_and_that_is_said(tmp_path: Path) -> None:
    rgb = tissue_rgb()[:256, :256]
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path, rgb, compression="jpeg", photometric="ycbcr", resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )  # fmt: skip

    answer = run("segment", path, "--box", "40,40,120,120", "-o", tmp_path / "x.geojson")

    assert answer.code == 0, answer.err
    assert "QuPath shows as noise unless it has Bio-Formats" in " ".join(answer.err.split())
