"""The user folder that somebody chose in QuPath, as Java keeps it on each system."""

import plistlib
from pathlib import Path

import pytest

from fixtures.homes import XML, linux, write_preferences
from fixtures.qupath_program import run_qupath
from wsisam_qupath.qupath.install.installation import find_installation
from wsisam_qupath.qupath.install.preferences import (
    find_series,
    find_user_folder,
    folder_of_node,
    from_registry_text,
    read_from_property_list,
    read_from_xml,
    suggest_user_folder,
)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("io.github.qupath", "_!'k!bw!u!'c!a@\"0!'g!d@\"i!#4!c@\"1!(!!}@\"0!'g="),
        ("0.6", "_!$!!.g!2"),
        ("plain", "plain"),
    ],
)
def test_java_keeps_a_node_in_the_folder_that_it_was_seen_to_make(name: str, folder: str) -> None:
    assert folder_of_node(name) == folder


def test_xml_of_linux_states_the_user_folder() -> None:
    assert read_from_xml(XML.encode()) == "/home/j&o/Qü Path"


@pytest.mark.parametrize(
    "content", [b"", b"no XML", XML.encode()[:200], XML.replace("userPath", "x").encode()]
)
def test_xml_that_is_damaged_or_states_nothing_is_no_user_folder(content: bytes) -> None:
    assert read_from_xml(content) is None


@pytest.mark.parametrize("kind", [plistlib.FMT_XML, plistlib.FMT_BINARY])
def test_property_list_of_macos_states_the_user_folder_of_each_series(
    kind: plistlib.PlistFormat,
) -> None:
    nodes = {"0.5/": {"userPath": "/Users/jo/old"}, "0.6/": {"userPath": "/Users/jo/Qü Path"}}
    content = plistlib.dumps({"/": {"io.github.qupath/": nodes}}, fmt=kind)

    assert read_from_property_list(content, "0.5") == "/Users/jo/old"
    assert read_from_property_list(content, "0.6") == "/Users/jo/Qü Path"
    assert read_from_property_list(content, "0.7") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"no list", b"bplist00 cut", b"<plist><dict>", plistlib.dumps({"/": "text"})],
    ids=["empty", "text", "cut binary", "cut XML", "no dictionary"],
)
def test_property_list_that_is_damaged_is_no_user_folder(content: bytes) -> None:
    assert read_from_property_list(content, "0.6") is None


@pytest.mark.parametrize(
    ("stored", "path"),
    [
        ("/C:///Users//jo///Qu/Path//v0.6", "C:\\Users\\jo\\QuPath\\v0.6"),
        ("/D:///Sch/u00f6ne /Bilder", "D:\\Schöne Bilder"),
        ("/C:///u00fc//u00fc", "C:\\ü\\u00fc"),
        ("////server//share", "\\\\server\\share"),
        ("/C:///ud83d/ude00", "C:\\\N{GRINNING FACE}"),
        ("c:\\x", "c:/x"),
    ],
)
def test_registry_text_is_read_as_java_wrote_it(stored: str, path: str) -> None:
    assert from_registry_text(stored) == path


@pytest.mark.parametrize(
    ("version", "series"),
    [("0.6.0", "0.6"), ("0.7.0-rc1", "0.7"), ("0.10.2-SNAPSHOT", "0.10"), ("", "0.6")],
)
def test_each_series_has_preferences_of_its_own(version: str, series: str) -> None:
    assert find_series(version) == series


@linux
def test_user_folder_is_the_chosen_one_of_that_series_while_it_is_there(tmp_path: Path) -> None:
    chosen = tmp_path / "Meine Skripte ü"
    write_preferences(tmp_path, chosen)

    assert find_user_folder("0.6.0", tmp_path) is None
    chosen.mkdir()
    assert find_user_folder("0.6.1", tmp_path) == chosen
    assert find_user_folder("0.5.1", tmp_path) is None
    assert suggest_user_folder("0.5.1", tmp_path) == tmp_path / "QuPath" / "v0.5"


@linux
@pytest.mark.qupath
def test_user_folder_is_found_where_qupath_itself_keeps_it(tmp_path: Path) -> None:
    chosen = tmp_path / "Meine Skripte & ü"
    chosen.mkdir()
    script = tmp_path / "choose.groovy"
    script.write_text(
        "import qupath.lib.gui.prefs.PathPrefs\n"
        "PathPrefs.userPathProperty().set(args[0])\n"
        "PathPrefs.savePreferences()\n",
        encoding="utf-8",
    )
    user_root = f"-Djava.util.prefs.userRoot={tmp_path}"

    done = run_qupath("script", script, "-a", chosen, java_options=[user_root])

    assert done.returncode == 0, done.stderr
    version = find_installation().version
    assert version is not None
    assert find_user_folder(version, tmp_path) == chosen
