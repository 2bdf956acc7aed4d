"""``setup`` as a whole, and the scripts that it brings to QuPath."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fixtures.homes import everything_in, preferences_are_there, request, scripts_in, step
from fixtures.qupath_folders import make_qupath
from fixtures.qupath_program import run_qupath
from wsisam_qupath.cli.setup_steps import SetupRequest, Step, exit_code, print_steps, run_setup
from wsisam_qupath.errors import OptionError, QuPathError
from wsisam_qupath.qupath.install import scripts
from wsisam_qupath.qupath.install.installation import find_installation
from wsisam_qupath.qupath.jvm.preferences import (
    find_user_folder,
    read_startup_script,
    read_user_folder,
    set_startup_script,
)
from wsisam_qupath.qupath.jvm.process import QuPathProcess

pytestmark = [pytest.mark.slow, pytest.mark.walk]


def test_a_dry_run_says_what_it_would_do_and_does_nothing(home: Path) -> None:
    steps = run_setup(request(home, dry_run=True, weights=("mobile-sam",)))

    assert [(one.name, one.state) for one in steps] == [
        ("QuPath", "would be done"),
        ("weights mobile-sam", "would be done"),
        ("server", "would be done"),
        ("Groovy scripts", "would be done"),
    ]
    assert steps[1].detail == "a download of 40.7 MB"
    assert everything_in(home) == []
    assert exit_code(steps) == 0


def test_a_second_run_has_nothing_to_do(home: Path) -> None:
    make_qupath(home / "QuPath-0.6.0")
    wanted = request(home, weights=("lite-medsam",))

    first, second = run_setup(wanted), run_setup(wanted)

    assert [one.state for one in first] == ["already there", "already there", "done", "done"]
    assert [one.state for one in second] == ["already there"] * 4
    assert scripts_in(home / "user" / "scripts" / "WSI-SAM") == scripts.read_shipped_scripts()


def test_one_failing_step_does_not_stop_the_next(home: Path) -> None:
    steps = run_setup(request(home, weights=("mobile-sam",)))

    assert [one.state for one in steps] == ["failed", "failed", "done", "done"]


def test_a_base_that_does_not_exist_is_said_before_anything_is_done(home: Path) -> None:
    with pytest.raises(OptionError, match="base: 'sam-3' is none of"):
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


def test_a_script_that_no_longer_comes_goes_unless_it_was_edited(tmp_path: Path) -> None:
    scripts.put(tmp_path, {"old.groovy": b"1", "edited.groovy": b"2"})
    (tmp_path / "edited.groovy").write_bytes(b"mine")

    scripts.put(tmp_path, {"new.groovy": b"3"})

    found = {path.name: path.read_bytes() for path in tmp_path.glob("*.groovy")}
    assert found == {"edited.groovy": b"mine", "new.groovy": b"3"}


def test_where_no_user_folder_was_chosen_the_one_that_qupath_suggests_is_made(home: Path) -> None:
    done = step(run_setup(SetupRequest(install=False)), "Groovy scripts")

    suggested = home / "QuPath" / "v0.6"
    assert scripts_in(suggested / "scripts" / "WSI-SAM") == scripts.read_shipped_scripts()
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
def test_scripts_go_where_qupath_looks(own_preferences: SetupRequest, tmp_path: Path) -> None:
    chosen = tmp_path / "Meine Skripte & ü"
    chosen.mkdir()
    choose = tmp_path / "choose.groovy"
    choose.write_text(
        "import qupath.lib.gui.prefs.PathPrefs\n"
        "PathPrefs.userPathProperty().set(args[0])\n"
        "PathPrefs.savePreferences()\n",
        encoding="utf-8",
    )
    user_root = f"-Djava.util.prefs.userRoot={tmp_path}"
    chose = run_qupath("script", choose, "-a", chosen, java_options=[user_root])
    assert chose.returncode == 0, chose.stderr

    done = step(run_setup(SetupRequest(install=False)), "Groovy scripts")

    count = len(scripts.read_shipped_scripts())
    assert done.detail == f"{count} in {chosen / 'scripts' / 'WSI-SAM'}."
    chosen.rename(tmp_path / "gone")
    assert find_user_folder() is None


@pytest.mark.qupath
def test_asking_a_qupath_that_was_never_started_leaves_its_preferences_alone(
    own_preferences: SetupRequest,
) -> None:
    with QuPathProcess() as qupath:
        assert qupath.run(read_user_folder) is None
        assert not qupath.run(preferences_are_there)


@pytest.mark.parametrize(
    ("version", "series"),
    [("0.6.0", "0.6"), ("0.7.0-rc1", "0.7"), ("0.10.2-SNAPSHOT", "0.10"), ("", "0.6")],
)
def test_each_series_has_preferences_of_its_own(version: str, series: str) -> None:
    assert scripts.find_series(version) == series


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
        assert qupath.run(read_startup_script) == str(theirs)
    assert left.state == "left alone"
    assert left.detail == f"QuPath runs {theirs} when it starts. Add the line below to it."
    assert left.to_paste.endswith("wsi_sam.groovy'), null)")


def test_a_line_to_paste_is_printed_in_one_piece() -> None:
    out = io.StringIO()
    line = "runScript(new File('/home/somebody/a folder/with/a/long/name/wsi_sam.groovy'))"
    print_steps([Step("startup script", "left alone", "yours", line)], Console(file=out, width=40))
    assert line in out.getvalue().splitlines()


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
        "import sys, wsisam_qupath.cli.setup_steps\n"
        "print(sorted({'torch', 'numpy', 'paquo', 'jpype'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
