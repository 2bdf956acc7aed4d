"""Home folders of users, what lies in them, and ``setup`` there."""

import platform
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from qupath_folders import search_only
from wsisam_qupath.qupath.preferences import folder_of_node
from wsisam_qupath.setup_command import SetupRequest, Step

XML = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!DOCTYPE map SYSTEM "http://java.sun.com/dtd/preferences.dtd">
<map MAP_XML_VERSION="1.0">
  <entry key="scriptsPath" value="/elsewhere"/>
  <entry key="userPath" value="/home/j&amp;o/Qü Path"/>
</map>
"""

linux = pytest.mark.skipif(platform.system() != "Linux", reason="preferences as on Linux")


def write_preferences(home: Path, user_folder: Path) -> None:
    """What Java on Linux writes when somebody chooses a user folder in QuPath 0.6."""
    folder = home / ".java" / ".userPrefs" / folder_of_node("io.github.qupath")
    node = folder / folder_of_node("0.6")
    node.mkdir(parents=True)
    text = XML.replace("/home/j&amp;o/Qü Path", str(user_folder))
    (node / "prefs.xml").write_text(text, encoding="utf-8")


def scripts_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.groovy")}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each download ends at a closed door of this machine."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # It is made once and remembers the proxies: another test must not get ours.
    monkeypatch.setattr(urllib.request, "_opener", None)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> Path:
    """A home folder without anything, in which paquo searches for QuPath."""
    folder = tmp_path / "home ü"
    folder.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder))
    search_only(monkeypatch, folder)
    return folder


def request(home: Path, **given: Any) -> SetupRequest:
    return SetupRequest(user_dir=home / "user", qupath_dir=given.pop("qupath_dir", home), **given)


def step(steps: tuple[Step, ...], name: str) -> Step:
    return next(step for step in steps if step.name == name)


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))
