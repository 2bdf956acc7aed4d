"""The note by which the scripts in QuPath start this program."""

import json
import sys
from pathlib import Path

import pytest

from wsisam_qupath.errors import FormatError
from wsisam_qupath.qupath.install import program


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the note lies, in a home folder of its own."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path / ".wsisam-qupath" / "program.json"


def test_the_note_has_its_format_and_the_command_that_starts_this_program(note: Path) -> None:
    assert not program.is_noted()

    assert program.note() == note

    assert program.is_noted()
    assert json.loads(note.read_text("utf-8")) == {
        "format": 1,
        "command": [sys.executable, "-m", "wsisam_qupath"],
    }


@pytest.mark.parametrize("content", ["", "[]", '{"command": ["elsewhere"]}', '{"format": true}'])
def test_a_damaged_note_or_that_of_another_installation_is_not_ours(
    note: Path, content: str
) -> None:
    note.parent.mkdir()
    note.write_text(content, encoding="utf-8")

    assert not program.is_noted()


def test_a_note_that_states_no_format_is_read(note: Path) -> None:
    note.parent.mkdir()
    note.write_text(json.dumps({"command": program.find_command()}), encoding="utf-8")

    assert program.is_noted()


def test_the_note_of_a_newer_version_is_refused(note: Path) -> None:
    note.parent.mkdir()
    note.write_text('{"format": 2, "command": {}}', encoding="utf-8")

    with pytest.raises(FormatError, match="is the note by which QuPath starts this program in for"):
        program.is_noted()
