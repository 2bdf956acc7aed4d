"""Real projects for the tests of batch, what QuPath says of them, and batches that get stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

from command_line import Answer, annotation, environment, rectangle, write_prompts
from qupath_fixtures import Seen, objects_in
from wsisam_qupath.backends import ImageArray
from wsisam_qupath.project.reading import read_project
from wsisam_qupath.pyramid import write_pyramid
from wsisam_qupath.qupath.installation import find_installation
from wsisam_qupath.qupath.process import QuPathProcess

GLAND = (262, 0, 470, 302)
LARGE_GLAND = (0, 0, 280, 266)
"""On the tissue of conftest.py and its mirror image, level-0 px; so are the others."""

SECTION, MIRRORED, STACK, BLANK = "Schnitt 1.tif", "Schnitt 2.tif", "Stapel.tif", "leer.tif"

STAGED = "data.qpdata.wsisam-new"
MARKER = "data.qpdata.wsisam-commit"


@pytest.fixture(scope="module", autouse=True)
def quick_java() -> Iterator[None]:
    """Java machines that live for seconds need no second compiler: a fifth of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        if "PAQUO_JAVA_OPTS" not in os.environ:
            patch.setenv("PAQUO_JAVA_OPTS", "-XX:TieredStopAtLevel=1")
        yield


def identity(number: int) -> str:
    """QuPath keeps ids that are UUIDs."""
    return f"{number:08d}-2fa1-51d2-883f-0016d3cca427"


BOX, CLICKS, NEGATIVE, NEAR, OUTLINE, REGION, CELL = map(identity, range(1, 8))
PLAIN_BOX, OUTSIDE, LOW_BOX, HIGH_BOX = map(identity, range(8, 12))


def write_slides(folder: Path, tissue: ImageArray) -> Path:
    """A section, its mirror image, both as the planes of a stack, and a slide nobody drew on."""
    folder.mkdir()
    write_pyramid(folder / SECTION, tissue, mpp=0.5)
    write_pyramid(folder / MIRRORED, mirrored(tissue), mpp=0.5)
    write_pyramid(folder / BLANK, np.full((512, 512, 3), 240, np.uint8), mpp=0.5)
    tifffile.imwrite(
        folder / STACK,
        np.stack([tissue, mirrored(tissue)]),
        imagej=True,
        photometric="rgb",
        resolution=(2.0, 2.0),
        metadata={"axes": "ZYXS", "unit": "um"},
    )
    return folder


def mirrored(tissue: ImageArray) -> ImageArray:
    return np.ascontiguousarray(tissue[:, ::-1])


def write_annotations(folder: Path) -> Path:
    """Prompts of each kind, and what is none, as GeoJSON files named as the slides."""
    folder.mkdir()
    box = rectangle(BOX, GLAND, "Gland")
    box["properties"] |= {"isLocked": True, "name": "die erste"}
    cell = annotation(CELL, "Polygon", [ring((300, 60), (330, 70), (310, 90))], "Gland")
    cell["properties"] |= {"objectType": "detection", "measurements": {"DAB": 0.5}}
    section = [
        box,
        annotation(CLICKS, "MultiPoint", [[140, 130], [150, 140]], "Tumor"),
        annotation(NEGATIVE, "MultiPoint", [[440, 20], [455, 280]], "Ignore*"),
        annotation(NEAR, "Point", [20, 250], "Ignore*"),
        annotation(
            OUTLINE, "Polygon", [ring((300, 20), (440, 60), (420, 250), (290, 260))], "Rand"
        ),
        annotation(REGION, "Polygon", [ring((0, 0), (512, 0), (512, 510), (0, 512))], "Region*"),
        cell,
    ]
    high = rectangle(HIGH_BOX, LARGE_GLAND, "Gland")
    high["geometry"]["plane"] = {"c": -1, "z": 1, "t": 0}
    write_prompts(folder / f"{SECTION}.geojson", section)
    outside = rectangle(OUTSIDE, (600, 600, 700, 700), "Gland")
    write_prompts(folder / f"{MIRRORED}.geojson", [rectangle(PLAIN_BOX, LARGE_GLAND), outside])
    write_prompts(folder / f"{STACK}.geojson", [rectangle(LOW_BOX, GLAND, "Gland"), high])
    return folder


def ring(*corners: tuple[float, float]) -> list[list[float]]:
    return [[*corner] for corner in (*corners, corners[0])]


def copy_of(project: Path, folder: Path) -> Path:
    """The project in another folder, file times and all; its slides stay where they are."""
    shutil.copytree(project.parent, folder)
    return folder / project.name


def seen_by(qupath: QuPathProcess, project: Path) -> dict[str, dict[str, Seen]]:
    """Every object but the roots by its id, by the names of the images."""
    return {
        entry.name: {one.id: one for one in qupath.run(objects_in, project, entry.id)}
        for entry in read_project(project).images
    }


def data_of(project: Path, name: str) -> Path:
    """Where the objects of an image lie."""
    (entry,) = (one for one in read_project(project).images if one.name == name)
    return entry.qpdata


def files_of(project: Path, *, ours: bool = True) -> dict[str, tuple[bytes, int]]:
    """Content and time of each file of a project.

    Args:
        ours: with those in the folder of this program.
    """
    folder = project.parent
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and (ours or path.relative_to(folder).parts[0] != "wsisam-qupath")
    }


def leftovers(project: Path) -> list[str]:
    """What only the middle of a change needs."""
    return [
        path.name
        for path in project.parent.rglob("*wsisam*")
        if path.is_file() and ".wsisam-backup." not in path.name
    ]


def journal_of(project: Path, name: str) -> Path:
    """Where the answers of an image are kept until they are written."""
    entry_id = data_of(project, name).parent.name
    return project.parent / "wsisam-qupath" / "journal" / f"{entry_id}.jsonl"


def journaled(project: Path, name: str) -> list[str]:
    """Ids of the answers in the journal of an image, those of whole lines."""
    try:
        lines = journal_of(project, name).read_bytes().splitlines(keepends=True)[1:]
    except FileNotFoundError:
        return []
    return [json.loads(line)[1]["id"] for line in lines if line.endswith(b"]\n")]


def words_of(answer: Answer) -> list[str]:
    """What is on stderr, but for the news that somebody has a QuPath open on this computer."""
    return [line for line in answer.words if not line.startswith("QuPath is running")]


def run_script(project: Path, script: Path, *options: str) -> list[dict[str, Any]]:
    """QuPath's command line with a Groovy script, for each image; what the script told of each."""
    found = find_installation()
    java = found.runtime_dir / "bin" / "java"
    if not java.is_file():
        pytest.skip(f"the QuPath at {found.app_dir} brings no java program")
    done = subprocess.run(
        [
            java,
            "-cp",
            found.app_dir / "*",
            "qupath.QuPath",
            "script",
            "-p",
            project,
            *options,
            script,
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert lines, done.stderr
    return [json.loads(line.removeprefix("TOLD ")) for line in lines]


# SIGINT is ignored by what runs in the background of a shell, and by its children.
_INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
"""

_PLAIN = f"""{_INTERRUPTIBLE}
from wsisam_qupath.cli import main
main()
"""

_HOOKED = f"""{_INTERRUPTIBLE}
import os, sys
number, event, ending = sys.argv[1:4]
del sys.argv[1:4]
def hook(name, given):
    if name == event and any(str(one).endswith(ending) for one in given[:2]):
        os.kill(os.getpid(), int(number))
sys.addaudithook(hook)
from wsisam_qupath.cli import main
main()
"""


@dataclass(frozen=True)
class Moment:
    """Just before a batch does something to a file.

    Attributes:
        event: Python's name of it, as for audit hooks.
        ending: of the file's path.
    """

    event: str
    ending: str


class RunningBatch:
    """``wsisam-qupath batch`` in a process group of its own, as from a shell.

    Args:
        at: a moment at which it gets a signal.
        signal_number: which.
        variables: of its environment.
    """

    def __init__(
        self,
        project: Path,
        *options: object,
        at: Moment | None = None,
        signal_number: int = signal.SIGTERM,
        **variables: str,
    ) -> None:
        program: Sequence[object] = ("-c", _PLAIN)
        if at is not None:
            program = ("-c", _HOOKED, int(signal_number), at.event, at.ending)
        self.project = project
        self._process = subprocess.Popen(
            [sys.executable, *map(str, (*program, "batch", project, *options))],
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> RunningBatch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Look every millisecond; the batch must not end before."""
        deadline = time.monotonic() + 120
        while not condition():
            assert self._process.poll() is None, self._process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.001)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()

    def pause(self) -> None:
        """Until it is interrupted."""
        self._process.send_signal(signal.SIGSTOP)

    def interrupt(self) -> None:
        """As Ctrl-C does it: every process of the group gets the signal."""
        os.killpg(self._process.pid, signal.SIGINT)
        os.killpg(self._process.pid, signal.SIGCONT)

    def java_pids(self) -> list[int]:
        """The process that QuPath lives in; to look for it takes longer than a short write."""
        found = []
        for child in psutil.Process(self._process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if any("spawn_main" in word for word in child.cmdline()):
                    found.append(child.pid)
        return found

    def ended(self) -> Answer:
        """Wait for its end."""
        out, err = (stream.decode() for stream in self._process.communicate(timeout=300))
        return Answer(self._process.returncode, out, err)
