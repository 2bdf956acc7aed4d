"""``setup``: what it finds, installs and copies, and what it leaves alone."""

import io
import platform
import plistlib
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qupath_folders import make_qupath, search_only
from wsisam_qupath.errors import OptionError, OutputError, QuPathError
from wsisam_qupath.qupath import download, scripts
from wsisam_qupath.qupath.installation import find_installation
from wsisam_qupath.qupath.preferences import (
    find_user_folder,
    folder_of_node,
    from_registry_text,
    in_property_list,
    in_xml,
    series_of,
    suggested_user_folder,
)
from wsisam_qupath.qupath.process import QuPathProcess
from wsisam_qupath.qupath.startup import set_startup_script, startup_script
from wsisam_qupath.setup_command import SetupRequest, Step, exit_code, print_steps, run_setup

# Java's preferences


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


XML = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!DOCTYPE map SYSTEM "http://java.sun.com/dtd/preferences.dtd">
<map MAP_XML_VERSION="1.0">
  <entry key="scriptsPath" value="/elsewhere"/>
  <entry key="userPath" value="/home/j&amp;o/Qü Path"/>
</map>
"""


def test_xml_of_linux_states_the_user_folder() -> None:
    assert in_xml(XML.encode()) == "/home/j&o/Qü Path"


@pytest.mark.parametrize(
    "content", [b"", b"no XML", XML.encode()[:200], XML.replace("userPath", "x").encode()]
)
def test_xml_that_is_damaged_or_states_nothing_is_no_user_folder(content: bytes) -> None:
    assert in_xml(content) is None


@pytest.mark.parametrize("kind", [plistlib.FMT_XML, plistlib.FMT_BINARY])
def test_property_list_of_macos_states_the_user_folder_of_each_series(
    kind: plistlib.PlistFormat,
) -> None:
    nodes = {"0.5/": {"userPath": "/Users/jo/old"}, "0.6/": {"userPath": "/Users/jo/Qü Path"}}
    content = plistlib.dumps({"/": {"io.github.qupath/": nodes}}, fmt=kind)

    assert in_property_list(content, "0.5") == "/Users/jo/old"
    assert in_property_list(content, "0.6") == "/Users/jo/Qü Path"
    assert in_property_list(content, "0.7") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"no list", b"bplist00 cut", b"<plist><dict>", plistlib.dumps({"/": "text"})],
    ids=["empty", "text", "cut binary", "cut XML", "no dictionary"],
)
def test_property_list_that_is_damaged_is_no_user_folder(content: bytes) -> None:
    assert in_property_list(content, "0.6") is None


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
    assert series_of(version) == series


linux = pytest.mark.skipif(platform.system() != "Linux", reason="preferences as on Linux")


def write_preferences(home: Path, user_folder: Path) -> None:
    """What Java on Linux writes when somebody chooses a user folder in QuPath 0.6."""
    folder = home / ".java" / ".userPrefs" / folder_of_node("io.github.qupath")
    node = folder / folder_of_node("0.6")
    node.mkdir(parents=True)
    text = XML.replace("/home/j&amp;o/Qü Path", str(user_folder))
    (node / "prefs.xml").write_text(text, encoding="utf-8")


@linux
def test_user_folder_is_the_chosen_one_of_that_series_while_it_is_there(tmp_path: Path) -> None:
    chosen = tmp_path / "Meine Skripte ü"
    write_preferences(tmp_path, chosen)

    assert find_user_folder("0.6.0", tmp_path) is None
    chosen.mkdir()
    assert find_user_folder("0.6.1", tmp_path) == chosen
    assert find_user_folder("0.5.1", tmp_path) is None
    assert suggested_user_folder("0.5.1", tmp_path) == tmp_path / "QuPath" / "v0.5"


@linux
@pytest.mark.qupath
def test_user_folder_is_found_where_qupath_itself_keeps_it(tmp_path: Path) -> None:
    try:
        found = find_installation()
    except QuPathError as exc:
        pytest.skip(str(exc))
    chosen = tmp_path / "Meine Skripte & ü"
    chosen.mkdir()
    script = tmp_path / "choose.groovy"
    script.write_text(
        "import qupath.lib.gui.prefs.PathPrefs\n"
        "PathPrefs.userPathProperty().set(args[0])\n"
        "PathPrefs.savePreferences()\n",
        encoding="utf-8",
    )
    command = (found.runtime_dir / "bin" / "java", f"-Djava.util.prefs.userRoot={tmp_path}")
    classes = ("-cp", found.app_dir / "*", "qupath.QuPath")
    subprocess.run([*command, *classes, "script", script, "-a", chosen], check=True, timeout=300)

    assert found.version is not None
    assert find_user_folder(found.version, tmp_path) == chosen


# Scripts


OLD = {"export.groovy": b"old", "other.groovy": b"other"}
NEW = {"export.groovy": b"new", "other.groovy": b"other", "third.groovy": b"third"}


def states(copies: tuple[scripts.ScriptCopy, ...]) -> list[str]:
    return [copy.state for copy in copies]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.groovy")}


def test_scripts_are_copied_once(tmp_path: Path) -> None:
    folder = scripts.menu_folder(tmp_path / "Qü Path")
    assert states(scripts.put(folder, OLD)) == ["missing", "missing"]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    assert states(scripts.put(folder, OLD)) == ["current", "current"]

    assert contents(tmp_path / "Qü Path" / "scripts" / "WSI-SAM") == OLD
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_our_own_older_copies_are_replaced(tmp_path: Path) -> None:
    scripts.put(tmp_path, OLD)
    assert states(scripts.put(tmp_path, NEW)) == ["outdated", "current", "missing"]
    assert contents(tmp_path) == NEW


def test_a_copy_that_somebody_edited_stays(tmp_path: Path) -> None:
    scripts.put(tmp_path, OLD)
    (tmp_path / "export.groovy").write_bytes(b"mine")

    for _ in range(2):
        assert scripts.put(tmp_path, NEW)[0].state == "edited"

    assert contents(tmp_path) == {**NEW, "export.groovy": b"mine"}


def test_a_copy_that_we_know_nothing_of_stays(tmp_path: Path) -> None:
    scripts.put(tmp_path, OLD)
    next(path for path in tmp_path.iterdir() if path.suffix == ".sha256").unlink()

    assert states(scripts.put(tmp_path, NEW)) == ["edited", "current", "missing"]


def test_looking_changes_nothing(tmp_path: Path) -> None:
    assert states(scripts.look(tmp_path / "new", OLD)) == ["missing", "missing"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot be created .* --user-dir"):
        scripts.put(tmp_path / "file" / "scripts", OLD)


# QuPath


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


def test_a_qupath_that_is_there_is_found_and_left_as_it_is(home: Path) -> None:
    app_dir = make_qupath(home / "QuPath-0.6.0")
    before = everything_in(home / "QuPath-0.6.0")

    found = step(run_setup(request(home)), "QuPath")

    assert (found.state, found.detail) == ("already there", f"QuPath 0.6.0 at {app_dir}")
    assert everything_in(home / "QuPath-0.6.0") == before


def test_without_a_network_installing_fails_with_the_cure_and_leaves_nothing(home: Path) -> None:
    steps = run_setup(request(home, qupath_dir=home / "programs"))

    failed = step(steps, "QuPath")
    assert failed.state == "failed"
    assert failed.detail.startswith("QuPath 0.6.0 cannot be downloaded from github.com (")
    assert f"into {home / 'programs'} and run this again" in failed.detail
    assert "PAQUO_QUPATH_DIR" in failed.detail
    assert everything_in(home / "programs") == []
    assert exit_code(steps) == 2


def test_installing_can_be_declined(home: Path) -> None:
    failed = step(run_setup(request(home, install=False)), "QuPath")

    assert failed.state == "failed"
    assert "There is no QuPath where paquo looks for it" in failed.detail


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PAQUO_QUPATH_DIR", "/nowhere", "which holds no QuPath"),
        ("PAQUO_JVM_PATH_OVERRIDE", "/nowhere", "which is no file"),
    ],
)
def test_a_setting_that_is_wrong_is_said_and_nothing_installed(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)

    failed = step(run_setup(request(home, dry_run=True)), "QuPath")

    assert failed.state == "failed"
    assert words in failed.detail


def write_archive(folder: Path) -> Path:
    """An archive as QuPath is released in, with hardly anything in it."""
    make_qupath(folder / "made" / "QuPath")
    path = folder / download._archive_name()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for file in everything_in(folder / "made"):
                zipped.write(file, file.relative_to(folder / "made"))
    else:
        with tarfile.open(path, "w:xz") as tar:
            tar.add(folder / "made" / "QuPath", "QuPath")
    return path


packed = pytest.mark.skipif(
    platform.system() == "Darwin", reason="only macOS makes packages of macOS"
)


@packed
def test_an_archive_that_was_brought_is_installed_where_paquo_finds_it(
    home: Path, tmp_path: Path
) -> None:
    write_archive(tmp_path).rename(home / download._archive_name())

    first, second = (step(run_setup(request(home)), "QuPath") for _ in range(2))

    assert (first.state, second.state) == ("done", "already there")
    assert first.detail == second.detail
    assert first.detail.startswith(f"QuPath 0.6.0 at {home / 'QuPath-0.6.0'}")
    assert sorted(path.name for path in home.iterdir()) == [
        "QuPath-0.6.0",
        download._archive_name(),
        "user",
    ]


@packed
def test_installed_where_paquo_does_not_search_the_variable_to_set_is_named(
    home: Path, tmp_path: Path
) -> None:
    programs = home / "programs"
    programs.mkdir()
    write_archive(tmp_path).rename(programs / download._archive_name())

    first, second = (
        step(run_setup(request(home, qupath_dir=programs)), "QuPath") for _ in range(2)
    )

    assert (first.state, second.state) == ("done", "already there")
    assert f"Set PAQUO_QUPATH_DIR to {programs / 'QuPath-0.6.0'}" in first.detail
    assert f"Set PAQUO_QUPATH_DIR to {programs / 'QuPath-0.6.0'}" in second.detail


@packed
def test_a_damaged_archive_installs_nothing(home: Path, tmp_path: Path) -> None:
    content = write_archive(tmp_path).read_bytes()
    (home / download._archive_name()).write_bytes(content[: len(content) // 2])

    failed = step(run_setup(request(home)), "QuPath")

    assert failed.state == "failed"
    assert f"{home / download._archive_name()} is damaged" in failed.detail
    assert sorted(path.name for path in home.iterdir()) == [download._archive_name(), "user"]


def test_something_else_in_the_place_of_qupath_is_not_touched(home: Path) -> None:
    place = download.installed_path(home)
    place.mkdir()
    (place / "thesis.txt").write_text("all of it", encoding="utf-8")

    failed = step(run_setup(request(home)), "QuPath")

    assert failed.detail == f"{place} is there, but holds no QuPath: remove it and run this again."
    assert everything_in(place) == [place / "thesis.txt"]


# The whole


def test_a_dry_run_says_what_it_would_do_and_does_nothing(home: Path) -> None:
    steps = run_setup(request(home, dry_run=True, weights=("mobile-sam",)))

    assert [(one.name, one.state) for one in steps] == [
        ("QuPath", "would be done"),
        ("weights mobile-sam", "would be done"),
        ("Groovy scripts", "would be done"),
    ]
    assert steps[1].detail == "a download of 40.7 MB"
    assert everything_in(home) == []
    assert exit_code(steps) == 0


def test_a_second_run_has_nothing_to_do(home: Path) -> None:
    make_qupath(home / "QuPath-0.6.0")
    wanted = request(home, weights=("lite-medsam",))

    first, second = run_setup(wanted), run_setup(wanted)

    assert [one.state for one in first] == ["already there", "already there", "done"]
    assert [one.state for one in second] == ["already there"] * 3
    assert contents(home / "user" / "scripts" / "WSI-SAM") == scripts.shipped_scripts()


def test_one_failing_step_does_not_stop_the_next(home: Path) -> None:
    steps = run_setup(request(home, weights=("mobile-sam",)))

    assert [one.state for one in steps] == ["failed", "failed", "done"]


def test_a_base_that_does_not_exist_is_said_before_anything_is_done(home: Path) -> None:
    with pytest.raises(OptionError, match="There is no base 'sam-3'"):
        run_setup(request(home, weights=("sam-3",)))
    assert everything_in(home) == []


def test_an_edited_script_is_left_alone_and_named(home: Path) -> None:
    run_setup(request(home))
    folder = home / "user" / "scripts" / "WSI-SAM"
    edited = next(folder.glob("*.groovy"))
    edited.write_text("// mine", encoding="utf-8")

    again = step(run_setup(request(home)), "Groovy scripts")

    assert again.state == "left alone"
    assert f"{edited.name} was changed by somebody and is left alone: delete it" in again.detail
    assert edited.read_text("utf-8") == "// mine"


@linux
def test_scripts_go_where_qupath_looks(home: Path) -> None:
    (home / "chosen").mkdir()
    write_preferences(home, home / "chosen")

    done = step(run_setup(SetupRequest(install=False)), "Groovy scripts")

    count = len(scripts.shipped_scripts())
    assert done.detail == f"{count} in {home / 'chosen' / 'scripts' / 'WSI-SAM'}."


@linux
def test_where_no_user_folder_was_chosen_the_one_that_qupath_suggests_is_made(home: Path) -> None:
    done = step(run_setup(SetupRequest(install=False)), "Groovy scripts")

    suggested = home / "QuPath" / "v0.6"
    assert contents(suggested / "scripts" / "WSI-SAM") == scripts.shipped_scripts()
    assert f"QuPath does not look there yet. Choose {suggested} in QuPath" in done.detail


@pytest.fixture
def own_preferences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetupRequest:
    """A QuPath that was never started: nothing of its user's is read or written."""
    monkeypatch.setenv("PAQUO_JAVA_OPTS", f"-Djava.util.prefs.userRoot='{tmp_path.as_posix()}'")
    try:
        find_installation()
    except QuPathError as exc:
        pytest.skip(str(exc))
    return SetupRequest(install=False, user_dir=tmp_path / "user", startup_script=True)


@pytest.mark.qupath
def test_our_script_is_made_qupaths_startup_script_once(own_preferences: SetupRequest) -> None:
    wanted = step(run_setup(replace(own_preferences, dry_run=True)), "startup script")
    done = step(run_setup(own_preferences), "startup script")
    again = step(run_setup(own_preferences), "startup script")

    assert own_preferences.user_dir is not None
    path = scripts.menu_folder(own_preferences.user_dir) / "wsi_sam.groovy"
    assert path.is_file()
    assert (wanted.state, wanted.detail) == ("would be done", str(path))
    assert done.state == "done"
    assert done.detail.startswith(f"{path}. Start QuPath again")
    assert (again.state, again.detail) == ("already there", str(path))


@pytest.mark.qupath
def test_another_startup_script_is_left_alone_and_told_how_to_call_ours(
    own_preferences: SetupRequest, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.groovy"
    theirs.write_text("// mine")
    with QuPathProcess() as qupath:
        qupath.run(set_startup_script, str(theirs))

    left = step(run_setup(own_preferences), "startup script")

    with QuPathProcess() as qupath:
        assert qupath.run(startup_script) == str(theirs)
    assert left.state == "left alone"
    assert left.detail.startswith(f"QuPath runs {theirs} when it starts. Add this line to it:")


def test_steps_are_printed_a_line_each_as_plain_text() -> None:
    out = io.StringIO()
    print_steps(
        [Step("QuPath", "done", "0.6.0 at [here]"), Step("Groovy scripts", "left alone", "2")],
        Console(file=out, width=80),
    )
    assert [line.rstrip() for line in out.getvalue().splitlines()] == [
        "done        QuPath          0.6.0 at [here]",
        "left alone  Groovy scripts  2",
    ]


def test_importing_setup_loads_nothing_heavy() -> None:
    code = (
        "import sys, wsisam_qupath.setup_command\n"
        "print(sorted({'torch', 'numpy', 'paquo', 'jpype'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
