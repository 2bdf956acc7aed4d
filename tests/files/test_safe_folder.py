from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from wsisam_qupath.files import IS_A_LINK, NOT_A_FILE, SafeFolder, read_file

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")

SECRET = b"somebody else's"

USES: dict[str, Callable[[SafeFolder, Path], object]] = {
    "open": lambda folder, path: folder.open(path).close(),
    "read": lambda folder, path: folder.read(path),
    "read_if_there": lambda folder, path: folder.read_if_there(path),
    "append": lambda folder, path: folder.append(path).close(),
    "sync": lambda folder, path: folder.sync(path),
    "state": lambda folder, path: folder.state(path),
    "check": lambda folder, path: folder.check(path),
    "make_folder": lambda folder, path: folder.make_folder(path),
    "file_names": lambda folder, path: folder.file_names(path),
}
WRITES: dict[str, Callable[[SafeFolder, Path], object]] = {
    "create": lambda folder, path: folder.create(path).close(),
    "write_synced": lambda folder, path: folder.write_synced(path, b"new"),
    "write_atomically": lambda folder, path: folder.write_atomically(path, b"new"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside" / "file"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


def untouched(outside: Path) -> bool:
    return list(outside.parent.iterdir()) == [outside] and outside.read_bytes() == SECRET


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("leads", ["to a file", "to a folder", "nowhere"])
def test_a_link_is_refused_by_its_name(root: Path, outside: Path, use: str, leads: str) -> None:
    target = {"to a file": outside, "to a folder": outside.parent}.get(leads, outside / "x")
    (root / "link").symlink_to(target)

    with pytest.raises(OSError, match=IS_A_LINK) as caught:
        USES[use](SafeFolder(root), root / "link")

    assert caught.value.errno == errno.ELOOP
    assert untouched(outside)


@pytest.mark.parametrize("use", [*USES, *WRITES])
def test_nothing_behind_a_linked_folder_is_reached(root: Path, outside: Path, use: str) -> None:
    (root / "linked").symlink_to(outside.parent)

    with pytest.raises(OSError, match=IS_A_LINK):
        {**USES, **WRITES}[use](SafeFolder(root), root / "linked" / "file")

    assert untouched(outside)


@pytest.mark.parametrize("use", WRITES)
@pytest.mark.parametrize("leads", ["somewhere", "nowhere"])
def test_a_new_file_takes_the_place_of_a_link(
    root: Path, outside: Path, use: str, leads: str
) -> None:
    (root / "link").symlink_to(outside if leads == "somewhere" else outside.parent / "new")

    WRITES[use](SafeFolder(root), root / "link")

    assert not (root / "link").is_symlink()
    assert untouched(outside)


@pytest.mark.parametrize("use", ["open", "read", "append", "sync"])
def test_what_is_no_ordinary_file_is_refused_and_not_waited_for(root: Path, use: str) -> None:
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        for name in ("pipe", "folder", "socket"):
            with pytest.raises(OSError, match=rf"{NOT_A_FILE}|Is a directory|No such device"):
                USES[use](SafeFolder(root), root / name)


def test_a_device_is_refused() -> None:
    for device in ("/dev/zero", "/dev/stdin"):
        with suppress(FileNotFoundError), pytest.raises(OSError, match=NOT_A_FILE):
            read_file(device)


def test_a_file_with_a_second_name_is_not_appended_to(root: Path, outside: Path) -> None:
    os.link(outside, root / "hard")

    with pytest.raises(OSError, match="second name"):
        SafeFolder(root).append(root / "hard")

    assert untouched(outside)


def test_a_path_that_leads_out_is_refused(root: Path, outside: Path) -> None:
    for path in (outside, root / ".." / "outside" / "file"):
        with pytest.raises(OSError, match="it is not in"):
            SafeFolder(root).read(path)


def test_a_link_to_the_root_itself_is_followed(root: Path, tmp_path: Path) -> None:
    (root / "a").write_bytes(b"1")
    (tmp_path / "way-in").symlink_to(root)

    assert SafeFolder(tmp_path / "way-in").read(tmp_path / "way-in" / "a") == b"1"


def test_larger_files_are_refused_before_they_are_read(root: Path) -> None:
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(OSError, match="larger than 1 MiB") as caught:
        SafeFolder(root).read(root / "sparse", bytes_max=1 << 20)

    assert caught.value.errno == errno.EFBIG


def test_a_file_that_is_replaced_keeps_its_permissions(root: Path) -> None:
    path = root / "file"
    path.write_bytes(b"old")
    path.chmod(0o664)

    SafeFolder(root).write_atomically(path, b"new")

    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o664
    assert list(root.iterdir()) == [path]


def test_a_name_that_is_swapped_all_the_time_never_leads_outside(root: Path, outside: Path) -> None:
    """A folder and a link in turn have the name through which a file is read."""
    (root / "real").mkdir()
    (root / "real" / "file").write_bytes(b"inside")
    (root / "link").symlink_to(outside.parent)
    name, stop = root / "name", threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for one in ("real", "link"):
                (root / one).rename(name)
                name.rename(root / one)

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen: list[bytes] = []
    try:
        while len(seen) < 200:
            with suppress(OSError):
                seen.append(SafeFolder(root).read(name / "file"))
    finally:
        stop.set()
        swapping.join()

    assert set(seen) == {b"inside"}


@pytest.mark.parametrize("taken_by", ["a file", "a link", "a link to nowhere", "a folder"])
def test_a_new_file_never_replaces_what_has_its_name(
    root: Path, outside: Path, taken_by: str
) -> None:
    path = root / "file"
    if taken_by == "a file":
        path.write_bytes(b"old")
    elif taken_by == "a folder":
        path.mkdir()
    else:
        path.symlink_to(outside if taken_by == "a link" else outside / "x")

    with pytest.raises(FileExistsError):
        SafeFolder(root).write_new(path, b"new")

    assert untouched(outside)
    assert list(root.iterdir()) == [path]
    assert taken_by != "a file" or path.read_bytes() == b"old"


@pytest.mark.parametrize("has_links", [True, False])
def test_a_new_file_is_written_whole_also_on_drives_without_hard_links(
    root: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    folder = SafeFolder(root)

    folder.write_new(root / "file", b"new")
    with pytest.raises(FileExistsError):
        folder.write_new(root / "file", b"newer")

    assert (root / "file").read_bytes() == b"new"
    assert list(root.iterdir()) == [root / "file"]
