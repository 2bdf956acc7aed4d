"""Prompts in GeoJSON that is large, or seems to be: what is wrong is said, in little memory."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from fixtures.command_line import rectangle, run, run_python, write_prompts
from wsisam_qupath.files import hold_alone

pytestmark = [pytest.mark.slow, pytest.mark.walk]

MIB = 1 << 20
SPACES = b" " * MIB
START = b'{"type": "FeatureCollection", "features": ['

MEASURED = """
import re, sys
from pathlib import Path
from wsisam_qupath.cli.main import main
sys.argv[0] = "wsisam-qupath"
try:
    main()
finally:
    status = Path("/proc/self/status").read_text()
    print(re.search(r"VmHWM:\\s+(\\d+)", status)[1])
"""
"""Runs a command, and prints the most memory that it took, KiB."""


def write(path: Path, pieces: Iterable[bytes]) -> Path:
    with path.open("wb") as file:
        file.writelines(pieces)
    return path


def feature(number: int) -> bytes:
    return json.dumps(rectangle(f"{number}", (10, 10, 60, 60))).encode()


def cut_off(number_of_features: int) -> Iterable[bytes]:
    yield START
    for number in range(number_of_features):
        yield feature(number) + b", "
    yield feature(0)[:-20]


def long_ring(size_bytes: int) -> Iterable[bytes]:
    """One feature with a ring of so many bytes, between two others."""
    before, after = json.dumps(rectangle("long", (0, 0, 1, 1))).split("[0, 0]", 1)
    yield START + feature(1) + b", " + before.encode()
    block = b"[12.25, 17.75], " * (MIB // 16)
    for _ in range(size_bytes // len(block)):
        yield block
    yield b"[0, 0]" + after.encode() + b", " + feature(2) + b"]}"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (cut_off(5), "cut off after 5 whole elements"),
        (cut_off(120_000), "cut off after 120,000 whole elements"),
        ([SPACES] * 100, "cut off after 0 whole elements"),
        (long_ring(300 * MIB), "element 2 of its list takes more than 32 MiB"),
    ],
    ids=["cut off", "cut off, large", "space", "one feature"],
)
def test_what_is_wrong_with_a_file_is_said_in_little_memory_and_nothing_is_written(
    tissue_path: Path, tmp_path: Path, pieces: Iterable[bytes], words: str
) -> None:
    prompts = write(tmp_path / "prompts.geojson", pieces)

    answer = run_python("-c", MEASURED, "segment", tissue_path, prompts, "-o", tmp_path / "out")

    assert answer.code == 2
    assert words in answer.err.splitlines()[-1]
    assert "Traceback" not in answer.err
    assert int(answer.out) < 600_000
    assert [one.name for one in tmp_path.iterdir()] == ["prompts.geojson"]


def test_a_file_with_much_space_is_read(tissue_path: Path, tmp_path: Path) -> None:
    spaced = [*[SPACES] * 40, START, *[SPACES] * 40, feature(1), *[SPACES] * 40, b"]}"]
    prompts = write(tmp_path / "prompts.geojson", spaced)

    answer = run("segment", tissue_path, prompts, "-o", tmp_path / "out.geojson")

    assert answer.code == 0, answer.err
    assert "1 prompt: " in answer.err


def test_of_two_at_once_with_the_same_output_the_second_is_refused(
    tissue_path: Path, tmp_path: Path
) -> None:
    prompts = write_prompts(tmp_path / "prompts.geojson", [rectangle("1", (10, 10, 60, 60))])
    output = tmp_path / "out.geojson"
    part = tmp_path / "out.geojson.part"
    part.write_bytes(b"of the first")

    with hold_alone(Path(f"{part}.lock"), "busy"):
        answer = run("segment", tissue_path, prompts, "-o", output)

    assert answer.code == 2
    assert re.search(r"Another program is writing .*out\.geojson right now", answer.err)
    assert part.read_bytes() == b"of the first"
    assert not os.path.lexists(output)
