"""The process in which QuPath's Java runs, and how little of it the main process notices."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from pathlib import Path

import psutil
import pytest

from fixtures.command_line import environment
from fixtures.qupath_fixtures import exhaust_memory, fail, make_project, parse_int, write_slide
from wsisam_qupath.errors import (
    ImageError,
    OptionError,
    ProjectError,
    QuPathError,
    QuPathTimeoutError,
)
from wsisam_qupath.files import CACHE_VARIABLE
from wsisam_qupath.qupath.install.installation import find_installation
from wsisam_qupath.qupath.jvm.about import check_opens, describe
from wsisam_qupath.qupath.jvm.process import QuPathProcess

pytestmark = [pytest.mark.qupath, pytest.mark.slow]

TESTS = Path(__file__).parents[2]

SCRIPT = """
import os, sys, time
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from fixtures import qupath_fixtures
if __name__ == "__main__":
    with QuPathProcess() as process:
        {body}
"""


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """A user's script, to its end."""
    script = folder / "script.py"
    script.write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(script)],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _environment() -> dict[str, str]:
    variables = environment()
    return {**variables, "PYTHONPATH": os.pathsep.join((variables["PYTHONPATH"], str(TESTS)))}


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_end(pid: int, seconds: float = 20.0) -> bool:
    """Whether a process ends in this time."""
    end = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_running(pid)


def test_functions_run_in_another_process_where_java_runs(qupath: QuPathProcess) -> None:
    info = qupath.run(describe)

    assert info.qupath_version == find_installation().version
    assert int(info.java_version.partition(".")[0]) >= 17
    assert info.paquo_version == importlib.metadata.version("paquo")
    assert qupath.run(os.getpid) == qupath.run(os.getpid) != os.getpid()


def test_answers_come_in_the_order_of_the_calls(qupath: QuPathProcess) -> None:
    futures = [qupath.submit(parse_int, str(number)) for number in range(20)]

    assert [future.result() for future in futures] == list(range(20))


def test_what_java_throws_comes_as_one_sentence(qupath: QuPathProcess) -> None:
    with pytest.raises(QuPathError, match=r'NumberFormatException: For input string: "seven"'):
        qupath.run(parse_int, "seven")


@pytest.mark.parametrize("kind", [ImageError, ProjectError, QuPathError])
def test_our_own_errors_cross_over_as_they_are(
    qupath: QuPathProcess, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=r"^The slide is gone\.$") as caught:
        qupath.run(fail, kind("The slide is gone."))

    assert type(caught.value) is kind


def test_an_error_of_an_option_crosses_over_with_its_option(qupath: QuPathProcess) -> None:
    with pytest.raises(OptionError) as caught:
        qupath.run(fail, OptionError("mpp", "0 is out of range."))

    assert (caught.value.option, caught.value.problem) == ("mpp", "0 is out of range.")


def test_too_little_memory_names_the_option_that_allows_more(qupath: QuPathProcess) -> None:
    with pytest.raises(QuPathError, match="PAQUO_JAVA_OPTS=-Xmx8g"):
        qupath.run(exhaust_memory)


def test_a_crash_costs_the_call_that_it_met_and_no_other(qupath: QuPathProcess) -> None:
    pid = qupath.run(os.getpid)
    met = qupath.submit(time.sleep, 60)
    waiting = qupath.submit(parse_int, "7")

    psutil.Process(pid).kill()

    with pytest.raises(QuPathError, match=r"ended unexpectedly.*PAQUO_JAVA_OPTS"):
        met.result()
    assert waiting.result() == 7
    assert qupath.run(os.getpid) != pid


def test_a_crash_between_calls_costs_none(qupath: QuPathProcess) -> None:
    pid = qupath.run(os.getpid)

    psutil.Process(pid).kill()
    assert wait_for_end(pid)
    time.sleep(0.5)  # for the driver to hear of it

    assert qupath.run(parse_int, "7") == 7


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to the whole console")
def test_ctrl_c_is_the_drivers_business(qupath: QuPathProcess) -> None:
    pid = qupath.run(os.getpid)
    future = qupath.submit(time.sleep, 0.5)

    os.kill(pid, signal.SIGINT)

    assert future.result() is None
    assert qupath.run(os.getpid) == pid


def test_leaving_waits_for_what_was_submitted_and_ends_the_process() -> None:
    with QuPathProcess() as process:
        pid = process.run(os.getpid)
        future = process.submit(time.sleep, 0.3)

    assert future.result(timeout=0) is None
    assert wait_for_end(pid)


@pytest.mark.parametrize("ends_badly", [False, True])
def test_native_libraries_that_java_unpacks_go_with_the_process(
    ends_badly: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    slide = write_slide(tmp_path / "s.tif")

    with QuPathProcess() as process:
        process.run(make_project, tmp_path / "project", [slide])
        unpacked = list(tmp_path.glob("java-*/*"))
        if ends_badly:
            psutil.Process(process.run(os.getpid)).kill()

    assert unpacked
    assert not list(tmp_path.glob("java-*"))


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))

    with QuPathProcess() as process:
        assert process.run(parse_int, "7") == 7


def test_leaving_with_an_error_waits_for_nothing() -> None:
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), QuPathProcess() as process:
        pid = process.run(os.getpid)
        running = process.submit(time.sleep, 300)
        waiting = process.submit(time.sleep, 300)
        while not running.running():
            time.sleep(0.01)
        raise KeyboardInterrupt

    assert time.monotonic() - start < 100
    assert wait_for_end(pid)
    with pytest.raises(QuPathError):
        running.result(timeout=0)
    with pytest.raises(CancelledError):
        waiting.result(timeout=0)


def test_nothing_reaches_stdout_and_nothing_is_said_unasked(tmp_path: Path) -> None:
    body = "process.run(qupath_fixtures.log_warning); print('the answer')"

    done = run_script(tmp_path, SCRIPT.format(body=body))

    assert (done.stdout, done.stderr, done.returncode) == ("the answer\n", "", 0)


def test_what_is_printed_beside_java_goes_to_stderr(tmp_path: Path) -> None:
    body = "process.run(qupath_fixtures.speak); print('the answer')"

    done = run_script(tmp_path, SCRIPT.format(body=body))

    assert done.stdout == "the answer\n"
    for who in ("Python speaks", "the file descriptor speaks", "Java speaks"):
        assert who in done.stderr


def test_a_script_that_starts_itself_again_is_told_what_it_lacks(tmp_path: Path) -> None:
    text = SCRIPT.format(body="process.run(os.getpid)").replace(
        'if __name__ == "__main__":', "if True:"
    )

    done = run_script(tmp_path, text)

    assert done.returncode == 1
    assert 'must have its code under `if __name__ == "__main__":`' in done.stderr


def test_a_driver_that_is_killed_takes_the_process_and_its_folder_with_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    body = "print(process.run(os.getpid), flush=True); process.run(time.sleep, 300)"
    script.write_text(SCRIPT.format(body=body), encoding="utf-8")
    cache = tmp_path / "cache"
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**_environment(), CACHE_VARIABLE: str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        assert list(cache.iterdir())

        driver.kill()

        assert wait_for_end(pid)
    assert list(cache.iterdir()) == []


def test_options_that_java_refuses_are_named_as_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PAQUO_JAVA_OPTS", "-XX:+NoSuchOption")

    with (
        QuPathProcess() as process,
        pytest.raises(QuPathError, match=r"PAQUO_JAVA_OPTS.*QuPath itself starts"),
    ):
        process.run(os.getpid)


def test_a_wrong_folder_is_said_before_any_process_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(tmp_path))

    with pytest.raises(QuPathError, match="which has no QuPath"), QuPathProcess():
        pass


def test_doctor_may_have_a_project_opened(qupath: QuPathProcess, tmp_path: Path) -> None:
    project = qupath.run(make_project, tmp_path / "Prüfung 1", [write_slide(tmp_path / "s.tif")])

    assert qupath.run(check_opens, project) == 1


def test_a_project_that_qupath_does_not_open_is_named(
    qupath: QuPathProcess, tmp_path: Path
) -> None:
    project = tmp_path / "project.qpproj"
    project.write_text("{", encoding="utf-8")

    with pytest.raises(ProjectError, match=r"Opening .*project\.qpproj failed in QuPath"):
        qupath.run(check_opens, project)


def test_a_call_that_takes_too_long_is_ended_and_the_next_is_answered(
    qupath: QuPathProcess,
) -> None:
    assert qupath.run(parse_int, "1") == 1
    begun = time.monotonic()
    with pytest.raises(QuPathTimeoutError, match=r"did not answer within 1 s"):
        qupath.run_within(1.0, time.sleep, 600)
    assert time.monotonic() - begun < 30
    assert qupath.run(parse_int, "2") == 2
