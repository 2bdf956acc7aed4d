from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.project_files import contents, make_project
from wsisam_qupath.errors import ProjectError
from wsisam_qupath.project.lock import project_lock
from wsisam_qupath.qupath.files.entries import Project
from wsisam_qupath.qupath.files.reading import read_project

HOLDER = """
import sys
from wsisam_qupath.project.lock import project_lock
from wsisam_qupath.qupath.files.reading import read_project
with project_lock(read_project(sys.argv[1]), what="batch"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return read_project(make_project(tmp_path / "Prüfung 1"))


@contextmanager
def other_process(project: Project) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock until its input ends, or it is killed."""
    command = [sys.executable, "-c", HOLDER, str(project.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def is_locked(project: Project) -> bool:
    try:
        with project_lock(project, what="batch"):
            return False
    except ProjectError:
        return True


def test_another_process_is_named(project: Project) -> None:
    with other_process(project) as process:
        with pytest.raises(ProjectError) as caught, project_lock(project, what="batch"):
            pass

        who = f"process {process.pid} on {socket.gethostname()}"
        assert re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", "NOW", str(caught.value)) == (
            f"Another batch works on {project.path} ({who}, since NOW): wait until it is done, or "
            "end it."
        )


def test_the_lock_ends_with_the_work(project: Project) -> None:
    with other_process(project) as process:
        assert is_locked(project)
        process.communicate("")

    assert process.returncode == 0
    assert not is_locked(project)
    assert not (project.own_folder / "lock.json").exists()


def test_the_lock_of_a_killed_process_is_free(project: Project) -> None:
    with other_process(project) as process:
        process.kill()
        process.wait()

        assert (project.own_folder / "lock.json").exists()
        assert not is_locked(project)


def test_the_lock_ends_with_an_error(project: Project) -> None:
    with pytest.raises(ZeroDivisionError), project_lock(project, what="batch"):
        raise ZeroDivisionError

    assert not is_locked(project)


def test_one_process_has_the_lock_once(project: Project) -> None:
    with project_lock(project, what="batch"):
        assert is_locked(project)
        in_thread: list[bool] = []
        thread = threading.Thread(target=lambda: in_thread.append(is_locked(project)))
        thread.start()
        thread.join()

    assert in_thread == [True]
    assert not is_locked(project)


def test_projects_of_other_folders_are_free(project: Project, tmp_path: Path) -> None:
    other = read_project(make_project(tmp_path / "other"))

    with project_lock(project, what="batch"):
        assert not is_locked(other)


def test_who_holds_the_lock_may_be_unknown(project: Project) -> None:
    with other_process(project):
        (project.own_folder / "lock.json").write_text("{")

        with (
            pytest.raises(
                ProjectError, match=r"process \? on an unknown computer, since an unknown"
            ),
            project_lock(project, what="batch"),
        ):
            pass


def test_the_project_itself_is_not_touched(project: Project) -> None:
    before = contents(project.folder)

    with project_lock(project, what="batch"):
        pass

    after = contents(project.folder)
    assert {name: after[name] for name in before} == before
    assert sorted(set(after) - set(before)) == ["wsisam-qupath", "wsisam-qupath/lock"]


def test_a_read_only_project_gets_no_folder(project: Project) -> None:
    before = contents(project.folder)
    mode = project.path.stat().st_mode
    project.path.chmod(mode & ~0o222)

    with (
        pytest.raises(ProjectError, match="is write-protected"),
        project_lock(project, what="batch"),
    ):
        pass

    project.path.chmod(mode)
    assert contents(project.folder) == before


def test_a_file_in_the_place_of_the_folder(project: Project) -> None:
    project.own_folder.write_text("mine")

    with (
        pytest.raises(ProjectError, match="cannot be locked in"),
        project_lock(project, what="batch"),
    ):
        pass

    assert project.own_folder.read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems mount in other ways")
def test_a_file_system_that_may_only_be_read_gets_no_folder(
    project: Project, tmp_path: Path
) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    if not shutil.which("mount") or os.geteuid() != 0:
        pytest.skip("only the administrator can mount")
    bind = ["mount", "--bind", str(project.folder), str(mounted)]
    if subprocess.run(bind, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(mounted)], check=True)
        with (
            pytest.raises(ProjectError, match="is write-protected"),
            project_lock(read_project(mounted), what="batch"),
        ):
            pass
    finally:
        subprocess.run(["umount", str(mounted)], check=True)

    assert not project.own_folder.exists()


@pytest.mark.skipif(os.name == "nt", reason="makes a hard link")
def test_a_lock_with_a_second_name_is_refused_and_left_alone(
    project: Project, tmp_path: Path
) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_bytes(b"months of work")
    project.own_folder.mkdir()
    os.link(thesis, project.own_folder / "lock")

    with (
        pytest.raises(ProjectError, match=r"cannot be locked in .*a second name, a hard link"),
        project_lock(project, what="batch"),
    ):
        pass

    assert thesis.read_bytes() == b"months of work"
