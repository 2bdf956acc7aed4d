"""The ``prepare`` command: what it encodes is read by later commands, and a stop loses nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.command_line import (
    GLAND,
    LARGE_GLAND,
    annotation,
    environment,
    rectangle,
    ring,
    run,
    run_here,
    write_prompts,
)
from wsisam_qupath.cli.prepare_run import PrepareRequest, run_prepare
from wsisam_qupath.errors import OptionError, OutputError
from wsisam_qupath.files import CACHE_VARIABLE
from wsisam_qupath.options import ModelSpec

LEFT = annotation("left", "Polygon", [ring((0, 0), (200, 0), (200, 512), (0, 512))])
OUTSIDE = annotation("out", "Polygon", [ring((900, 0), (1000, 0), (1000, 100), (900, 100))])
STORE = ("--embeddings-gb", "1")


@pytest.fixture
def own_cache(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with the prepared models of all tests, and no patches."""
    own = tmp_path / "cache"
    own.mkdir()
    (cache / "openvino").mkdir(exist_ok=True)
    (own / "openvino").symlink_to(cache / "openvino", target_is_directory=True)
    monkeypatch.setenv(CACHE_VARIABLE, str(own))
    return own / "embeddings"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    point = annotation("click", "Point", [320, 404])
    both = [rectangle("gland", GLAND), rectangle("large", LARGE_GLAND), point]
    return write_prompts(tmp_path / "prompts.geojson", both)


@pytest.fixture
def request_of(tissue_path: Path, prompts: Path) -> PrepareRequest:
    return PrepareRequest(str(tissue_path), prompts, model=ModelSpec(embeddings_gb=1))


@pytest.mark.slow
def test_what_was_prepared_is_not_encoded_when_it_is_outlined(
    own_cache: Path,
    prompts: Path,
    tissue_path: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    prepared = run_here(capfd, "prepare", tissue_path, prompts, *STORE, "--quiet")
    count = len(list(own_cache.iterdir()))
    segment = ("segment", tissue_path, prompts, "-o", tmp_path / "o.geojson", "--quiet")
    told = run_here(capfd, *segment, WSISAM_QUPATH_EMBEDDINGS_GB="1")

    assert (prepared.code, told.code) == (0, 0), prepared.err + told.err
    assert prepared.err.startswith("3 patch pairs encoded, 0 kept before; ")
    assert count >= 4  # a click is answered on both patches
    assert "0 patch pairs encoded by " in told.err
    assert f", {count} patches read from the disk." in told.err
    without = run_here(capfd, *segment)
    assert "3 patch pairs encoded by " in without.err
    assert "from the disk" not in without.err


@pytest.mark.slow
def test_only_what_is_missing_is_encoded(request_of: PrepareRequest, own_cache: Path) -> None:
    assert run_prepare(request_of) == 3
    whole = {path.name: path.read_bytes() for path in own_cache.iterdir()}
    next(iter(own_cache.iterdir())).unlink()

    assert run_prepare(request_of) == 1
    assert run_prepare(request_of) == 0

    assert {path.name: path.read_bytes() for path in own_cache.iterdir()} == whole


@pytest.mark.slow
@pytest.mark.walk
def test_a_killed_preparation_goes_on_where_it_was(
    request_of: PrepareRequest, own_cache: Path
) -> None:
    whole = replace(request_of, prompts=None, object_size_um=50)
    command = (sys.executable, "-m", "wsisam_qupath", "prepare", whole.slide)
    with subprocess.Popen(
        [*command, "--object-size", "50", *STORE, "--quiet"], env=environment()
    ) as killed:
        while len(list(own_cache.glob("*.patch"))) < 2:
            assert killed.poll() is None
            time.sleep(0.05)
        killed.kill()
    there = {path.name: path.read_bytes() for path in own_cache.glob("*.patch")}

    encoded = run_prepare(whole)

    assert len(there) >= 2
    assert encoded == len(list(own_cache.glob("*.patch"))) - len(there) > 0
    assert {name: (own_cache / name).read_bytes() for name in there} == there


@pytest.mark.slow
def test_without_prompts_the_tissue_is_encoded_as_find_looks_at_it(
    request_of: PrepareRequest,
    own_cache: Path,
    tmp_path: Path,
    tissue_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    within = write_prompts(tmp_path / "left.geojson", [LEFT])
    whole = replace(request_of, prompts=None, object_size_um=100)

    part = run_prepare(replace(whole, within=within))
    rest = run_prepare(whole)
    find = ("find", tissue_path, "--everything", "--object-size", "100")
    found = run_here(capfd, *find, "-o", tmp_path / "found.geojson", "--quiet", *STORE)

    assert part > 0
    assert rest > 0
    assert found.code == 0, found.err
    assert len(list(own_cache.iterdir())) >= part + rest
    assert run_prepare(whole) == 0


@pytest.mark.slow
def test_too_little_room_is_told_at_the_start(
    request_of: PrepareRequest, own_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_prepare(replace(request_of, model=ModelSpec(embeddings_gb=0.009)))

    assert (
        "All of it would take about 0.014 GB: of 0.009 GB, what is encoded first goes again."
        in (" ".join(capfd.readouterr().err.split()))
    )
    assert sum(path.stat().st_size for path in own_cache.iterdir()) <= 9e6


@pytest.mark.slow
def test_a_cache_that_takes_nothing_is_named(request_of: PrepareRequest, own_cache: Path) -> None:
    own_cache.write_text("not a folder")

    with pytest.raises(OutputError, match=r"Nothing can be kept in .*embeddings: make room there"):
        run_prepare(request_of)


@pytest.mark.slow
@pytest.mark.walk
def test_the_cache_command_shows_and_deletes_what_was_prepared(
    request_of: PrepareRequest, own_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_prepare(request_of)

    shown = run_here(capfd, "cache", "--quiet")
    (own_cache.parent / "openvino").unlink()
    run_here(capfd, "cache", "--clear", "--quiet")

    assert "encoded patches of slides" in shown.out
    assert not own_cache.exists()


def test_a_size_is_needed(request_of: PrepareRequest) -> None:
    with pytest.raises(OptionError, match="embeddings_gb: is needed: say how many GB"):
        run_prepare(replace(request_of, model=ModelSpec()))


def test_areas_are_for_slides_without_prompts(request_of: PrepareRequest, tmp_path: Path) -> None:
    within = write_prompts(tmp_path / "left.geojson", [LEFT])
    with pytest.raises(OptionError, match="within: is for a slide without prompts"):
        run_prepare(replace(request_of, within=within))


def test_areas_outside_of_the_slide_are_refused(request_of: PrepareRequest, tmp_path: Path) -> None:
    within = write_prompts(tmp_path / "out.geojson", [OUTSIDE])
    with pytest.raises(OptionError, match="within: the areas lie outside of the slide"):
        run_prepare(replace(request_of, prompts=None, within=within))


@pytest.mark.slow
def test_the_command_line_names_its_options(tissue_path: Path, prompts: Path) -> None:
    answer = run("prepare", tissue_path, prompts)

    assert answer.code == 2
    assert "--embeddings-gb: is needed" in answer.err
