"""The ``find`` command: what it writes, what it refuses, and that a stop loses nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.command_line import annotation, features_of, rectangle, ring, run, write_prompts
from wsisam_qupath.cli.find_run import FindRequest, run_find
from wsisam_qupath.errors import OptionError, PromptError
from wsisam_qupath.slide.pyramid import write_pyramid

GLAND = rectangle("gland", (248, 298, 392, 510), "gland")
LEFT = annotation("left", "Polygon", [ring((0, 0), (256, 0), (256, 512), (0, 512))])


@pytest.fixture
def request_of(tissue_path: Path, tmp_path: Path) -> FindRequest:
    examples = write_prompts(tmp_path / "examples.geojson", [GLAND])
    return FindRequest(str(tissue_path), tmp_path / "found.geojson", examples)


@pytest.mark.slow
@pytest.mark.walk
def test_found_objects_are_written_the_surest_first(request_of: FindRequest) -> None:
    overlay = request_of.output.with_suffix(".png")

    count = run_find(replace(request_of, overlay=overlay))

    features = features_of(request_of.output)
    assert len(features) == count >= 3
    scores = [feature["properties"]["measurements"]["Predicted IoU"] for feature in features]
    assert scores == sorted(scores, reverse=True)
    assert {one["properties"]["classification"]["name"] for one in features} == {"gland"}
    assert {one["properties"]["objectType"] for one in features} == {"detection"}
    with Image.open(overlay) as picture:
        assert picture.width > 100
    left = {path.name for path in request_of.output.parent.iterdir()}
    assert left == {"examples.geojson", "found.geojson", "found.png"}


@pytest.mark.slow
@pytest.mark.walk
def test_only_the_surest_are_kept_within_a_region(request_of: FindRequest) -> None:
    within = write_prompts(request_of.output.with_name("left.geojson"), [LEFT])

    assert run_find(replace(request_of, within=within, most=2)) == 2

    for feature in features_of(request_of.output):
        assert min(x for x, _ in feature["geometry"]["coordinates"][0]) < 256


@pytest.mark.slow
@pytest.mark.walk
def test_a_search_that_was_killed_goes_on(
    request_of: FindRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    run_find(request_of)
    whole = request_of.output.read_bytes()
    part = request_of.output.with_name("found.geojson.part")

    stopped = replace(request_of, overlay=request_of.output.with_name("no folder") / "o.png")
    request_of.output.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsisam_qupath.cli.find_run.check_writable", lambda _: None)
        with pytest.raises(Exception, match="no folder"):
            run_find(stopped)  # at the very end, with all tiles done
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[: len(lines) // 2]))
    run_find(request_of)

    assert "An earlier run was stopped: this one goes on there." in capsys.readouterr().err
    assert request_of.output.read_bytes() == whole
    assert not part.exists()


@pytest.mark.slow
@pytest.mark.walk
def test_the_command_finds_everything_of_a_size(tissue_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.geojson"

    answer = run("find", tissue_path, "--everything", "--object-size", "100", "-o", out, "--quiet")

    assert answer.code == 0, answer.err
    assert answer.err.endswith(" s.\n")
    assert len(features_of(out)) >= 3


@pytest.mark.slow
@pytest.mark.walk
def test_where_nothing_is_found_the_command_says_what_to_change(
    request_of: FindRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    glass = tmp_path / "glass.tif"
    write_pyramid(glass, np.full((600, 600, 3), 245, dtype=np.uint8), mpp=0.5)

    assert run_find(replace(request_of, min_score=1.0)) == 0
    unlike = capsys.readouterr().err
    assert run_find(replace(request_of, slide=str(glass))) == 0
    bare = capsys.readouterr().err

    assert "Nothing was found: choose other examples or another size" in " ".join(unlike.split())
    assert "nothing but bare glass" in " ".join(bare.split())
    assert features_of(request_of.output) == []


def test_what_was_read_is_not_replaced(request_of: FindRequest) -> None:
    examples = request_of.examples
    assert examples is not None
    before = examples.read_bytes()

    with pytest.raises(OptionError, match="would replace the examples: choose another file"):
        run_find(replace(request_of, output=examples))
    with pytest.raises(OptionError, match="would replace the slide: choose another file"):
        run_find(replace(request_of, overlay=Path(request_of.slide)))

    assert examples.read_bytes() == before


def test_examples_and_everything_exclude_each_other(request_of: FindRequest) -> None:
    with pytest.raises(OptionError, match=r"a file of examples or --everything .* not both"):
        run_find(replace(request_of, everything=True))
    with pytest.raises(OptionError, match="nothing to look for: give a file of examples"):
        run_find(replace(request_of, examples=None))


def test_everything_needs_a_size(request_of: FindRequest) -> None:
    with pytest.raises(OptionError, match="is needed to find everything"):
        run_find(replace(request_of, examples=None, everything=True))


def test_examples_off_the_slide_are_named(
    request_of: FindRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert request_of.examples is not None
    far = rectangle("far", (9000, 9000, 9100, 9100))
    write_prompts(request_of.examples, [far])

    with pytest.raises(PromptError, match="holds no example on the slide"):
        run_find(request_of)

    assert "Skipped in examples.geojson: far: it lies outside" in capsys.readouterr().err
    assert not request_of.output.exists()


def test_examples_of_ignored_classes_alone_are_explained(request_of: FindRequest) -> None:
    assert request_of.examples is not None
    write_prompts(request_of.examples, [rectangle("r", (100, 100, 200, 200), "Gland*")])

    with pytest.raises(PromptError, match="objects of classes that end in '\\*'"):
        run_find(request_of)


def test_a_file_without_objects_is_refused(request_of: FindRequest) -> None:
    assert request_of.examples is not None
    request_of.examples.write_text(json.dumps({"a": 1}), "utf-8")

    with pytest.raises(PromptError, match="is not GeoJSON"):
        run_find(request_of)
