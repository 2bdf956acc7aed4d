"""Our scripts are copied into a user folder; what somebody edited stays."""

from hashlib import sha256
from pathlib import Path

import pytest

from fixtures.homes import scripts_in
from wsisam_qupath.errors import FormatError, OutputError
from wsisam_qupath.qupath.install import scripts

OLD = {"export.groovy": b"old", "room/Other.groovy": b"other"}
NEW = {"export.groovy": b"new", "room/Other.groovy": b"other", "room/Third.groovy": b"third"}


def states(copies: tuple[scripts.ScriptCopy, ...]) -> list[str]:
    return [copy.state for copy in copies]


def test_scripts_are_copied_once(tmp_path: Path) -> None:
    folder = scripts.menu_folder(tmp_path / "Qü Path")
    assert states(scripts.put(folder, OLD)) == ["missing", "missing"]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    assert states(scripts.put(folder, OLD)) == ["current", "current"]

    assert scripts_in(tmp_path / "Qü Path" / "scripts" / "WSI-SAM") == OLD
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_our_own_older_copies_are_replaced(tmp_path: Path) -> None:
    scripts.put(tmp_path, OLD)
    assert states(scripts.put(tmp_path, NEW)) == ["outdated", "current", "missing"]
    assert scripts_in(tmp_path) == NEW


def test_a_copy_that_somebody_edited_stays(tmp_path: Path) -> None:
    scripts.put(tmp_path, OLD)
    (tmp_path / "export.groovy").write_bytes(b"mine")

    for _ in range(2):
        assert scripts.put(tmp_path, NEW)[0].state == "edited"

    assert scripts_in(tmp_path) == {**NEW, "export.groovy": b"mine"}


def test_a_copy_that_we_know_nothing_of_stays(tmp_path: Path) -> None:
    scripts.put(tmp_path, OLD)
    next(path for path in tmp_path.iterdir() if path.suffix == ".sha256").unlink()

    assert states(scripts.put(tmp_path, NEW)) == ["edited", "current", "missing"]


def test_a_record_of_version_0_1_is_read(tmp_path: Path) -> None:
    (tmp_path / "export.groovy").write_bytes(b"old")
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "Other.groovy").write_bytes(b"changed since")
    record = tmp_path / ".wsisam-qupath.sha256"
    lines = [f"{sha256(content).hexdigest()}  {name}\n" for name, content in sorted(OLD.items())]
    record.write_text("".join(lines))

    assert states(scripts.put(tmp_path, NEW)) == ["outdated", "edited", "missing"]

    assert record.read_text().startswith("# format 2\n")
    assert states(scripts.look(tmp_path, NEW)) == ["current", "edited", "current"]


def test_a_record_of_a_newer_version_is_refused_and_everything_left_alone(tmp_path: Path) -> None:
    scripts.put(tmp_path, OLD)
    record = tmp_path / ".wsisam-qupath.sha256"
    record.write_text(record.read_text().replace("# format 2", "# format 3"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}

    with pytest.raises(FormatError, match="is the list of installed scripts in format 3"):
        scripts.put(tmp_path, NEW)

    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_looking_changes_nothing(tmp_path: Path) -> None:
    assert states(scripts.look(tmp_path / "new", OLD)) == ["missing", "missing"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot be created .* choose another user folder"):
        scripts.put(tmp_path / "file" / "scripts", OLD)
