from __future__ import annotations

import json
import re
import shutil
import uuid
from pathlib import Path

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
    annotation,
    features_of,
    rectangle,
    run,
    write_prompts,
)
from fixtures.models import tissue_rgb
from fixtures.segment_runs import segment
from wsisam_qupath.options import ModelSpec

pytestmark = pytest.mark.slow

LUMEN = (272, 0, 388, 198)
NUCLEUS = (479, 30, 490, 65)
ROUGH_OUTLINE = [[[255, 310], [320, 290], [375, 320], [400, 420], [360, 512], [240, 400]]]
ON_PLANE = {"c": -1, "z": 3, "t": 2}


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
    assert any(line.startswith("Skipped 線: a straight line measures") for line in words)
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
