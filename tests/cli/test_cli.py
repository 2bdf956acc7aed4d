from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fixtures.command_line import Answer, environment, rectangle, run, run_python, write_prompts
from wsisam_qupath.cli.weights_download import run_weights
from wsisam_qupath.files import CACHE_VARIABLE
from wsisam_qupath.model.bases import Download, find_base
from wsisam_qupath.model.weights import locate_weights

pytestmark = pytest.mark.slow

HEAVY = ("numpy", "torch", "openvino", "shapely", "rich", "PIL", "openslide", "requests")
BEFORE = b"what stood here before"

# SIGINT is ignored by what runs in the background of a shell, and by its children.
INTERRUPTIBLE = (
    "import signal, sys\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from wsisam_qupath.cli.main import main\n"
    "main()\n"
)


# Help


@pytest.mark.parametrize("command", [[], ["segment"], ["demo"], ["weights"], ["doctor"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys\n"
        "from wsisam_qupath.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        f"    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )

    answer = run_python("-c", code, *command, "--help")

    assert (answer.code, answer.err.strip()) == (0, "[]")
    assert answer.out.startswith("Usage: ")


def test_help_is_readable_where_the_encoding_lacks_the_micro_sign() -> None:
    answer = run("segment", "--help", PYTHONIOENCODING="iso8859-2")

    assert answer.code == 0
    assert r"in \xb5m" in answer.out


def test_the_version_is_told() -> None:
    answer = run("--version")

    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("wsisam-qupath 0")


# Weights and doctor


def test_weights_prints_where_they_are(tmp_path: Path) -> None:
    answer = run("weights", "lite-medsam", cwd=tmp_path)

    assert answer.code == 0
    assert answer.err == "License of these weights: Apache-2.0: LiteMedSAM, Bo Wang's lab\n"
    assert Path(answer.out.strip()) == locate_weights(find_base("lite-medsam")).path


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_weights_are_downloaded_into_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "sam.pt").write_bytes(content)
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        source = Download(f"http://127.0.0.1:{server.server_port}/sam.pt", "sam.pt", len(content))
        digest = hashlib.sha256(content).hexdigest()
        base = replace(find_base("mobile-sam"), source=source, sha256=digest)
        monkeypatch.setattr("wsisam_qupath.cli.weights_download.find_base", {base.name: base}.get)
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))

        path = run_weights("mobile-sam")

        server.shutdown()
        thread.join()
    assert path == tmp_path / "cache" / "weights" / "sam.pt"
    assert path.read_bytes() == content


def test_the_doctor_prints_a_plain_table_into_a_pipe(tmp_path: Path) -> None:
    answer = run("doctor", "--quiet", cwd=tmp_path)  # a slow machine has progress lines

    assert (answer.code, answer.err) == (0, "")
    assert answer.out.split()[:3] == ["State", "What", "Found"]
    assert answer.out.endswith("Everything that is needed works.\n")
    assert "\x1b" not in answer.out
    assert list(tmp_path.iterdir()) == []


# Streams


def test_a_reader_that_goes_away_is_no_error(tissue_path: Path) -> None:
    command = [sys.executable, "-m", "wsisam_qupath", "segment", str(tissue_path)]
    with subprocess.Popen(
        [*command, "--box", "100,100,200,200"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        words = process.stderr.read().decode()

    assert process.returncode != 0
    assert "Traceback" not in words
    assert "Exception" not in words


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_under_stdout_is_named(tissue_path: Path) -> None:
    command = [sys.executable, "-m", "wsisam_qupath", "segment", str(tissue_path)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*command, "--box", "100,100,200,200", "--quiet"],  # a slow machine has progress lines
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
        )

    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "wsisam-qupath: stdout takes no more (No space left on device). Make room, or name a file "
        "with -o."
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no folder that is in use")
def test_a_folder_that_was_deleted_under_the_user_is_named(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from wsisam_qupath.cli.main import main\n"
        "os.mkdir('gone')\n"
        "os.chdir('gone')\n"
        "os.rmdir('../gone')\n"
        "main()\n"
    )

    answer = run_python("-c", code, "segment", "slide.svs", "--box", "1,2,3,4", cwd=tmp_path)

    words = "wsisam-qupath: The current folder was deleted. Change to another one.\n"
    assert answer == Answer(2, "", words)


# Ctrl-C


@pytest.fixture
def many_prompts(tmp_path: Path) -> Path:
    """Work for minutes: rectangles of many sizes share no patch pair. One is skipped, and named."""
    features = [rectangle("far off", (9000, 9000, 9100, 9100))]
    features += [
        rectangle(f"{x} {y}", (x, y, x + 40, y + 40))
        for x in range(0, 470, 2)
        for y in range(0, 470, 10)
    ]
    return write_prompts(tmp_path / "prompts.geojson", features)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("after_s", [0.0, 4.0], ids=["loading", "outlining"])
def test_ctrl_c_ends_quietly_and_keeps_what_was_there(
    tissue_path: Path, many_prompts: Path, after_s: float
) -> None:
    output = many_prompts.with_name("out.geojson")
    output.write_bytes(BEFORE)
    picture = many_prompts.with_name("seen.png")

    answer = interrupted(
        ["segment", tissue_path, many_prompts, "-o", output, "--overlay", picture], after_s
    )

    assert (answer.code, answer.out) == (130, "")
    assert answer.words[-1] == "Interrupted. No file was left half-written."
    assert output.read_bytes() == BEFORE
    left = {path.name for path in many_prompts.parent.iterdir()}
    # What was outlined so far is kept, if it had come to that: a header alone is not.
    assert left - {"out.geojson.part"} == {"prompts.geojson", "out.geojson"}
    part = many_prompts.with_name("out.geojson.part")
    assert not part.exists() or part.read_bytes().count(b"\n") > 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_while_the_model_is_prepared_leaves_nothing_half_prepared(
    tissue_path: Path, many_prompts: Path, tmp_path: Path
) -> None:
    new_cache = tmp_path / "new cache"

    # The graphs of the default model ship; those of the base alone are made.
    command = ["segment", tissue_path, many_prompts, "--adapter", "none"]
    answer = interrupted(command, 4.0, **{CACHE_VARIABLE: str(new_cache)})

    assert answer == Answer(130, "", "Interrupted. No file was left half-written.\n")
    assert [path for path in new_cache.rglob("*") if path.is_file()] == []


def test_ctrl_c_is_not_hidden_by_the_error_that_a_library_makes_of_it() -> None:
    # As extension modules do whose import is broken off.
    code = (
        "import signal, sys\n"
        "import wsisam_qupath.cli.weights_download as command\n"
        "def load(name):\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        raise ImportError('initialization failed') from None\n"
        "command.run_weights = load\n"
    )

    answer = run_python("-c", code + INTERRUPTIBLE, "weights", "lite-medsam")

    assert answer == Answer(130, "", "Interrupted. No file was left half-written.\n")


def interrupted(arguments: Sequence[object], after_s: float, **variables: str) -> Answer:
    """What a command answers that gets a Ctrl-C so long after it has read its prompts."""
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**variables),
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline().decode()
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert first == "Skipped far off: it lies outside of the slide.\n"
    # Python may end by the signal itself, which shells call 130 too.
    code = 130 if process.returncode == -signal.SIGINT else process.returncode
    # click ends the line in which a terminal shows ^C.
    return Answer(code, out.decode(), err.decode().lstrip("\n"))
