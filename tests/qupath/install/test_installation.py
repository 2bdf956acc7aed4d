"""Where QuPath is looked for. The installations are empty files in the places of real ones."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from fixtures.command_line import run_python
from wsisam_qupath.errors import QuPathError
from wsisam_qupath.qupath.install.installation import find_installation

_LAYOUTS = {
    "Linux": ("lib/app", "lib/runtime", "lib/server/libjvm.so"),
    "Darwin": ("Contents/app", "Contents/runtime/Contents/Home", "lib/libjli.dylib"),
    "Windows": ("app", "runtime", "bin/server/jvm.dll"),
}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is found but what a test makes."""
    for name in ("QUPATH_DIR", "JAVA_OPTS", "JVM_PATH_OVERRIDE"):
        monkeypatch.delenv(f"PAQUO_{name}", raising=False)
    monkeypatch.setenv("PAQUO_QUPATH_SEARCH_DIRS", f'["{(tmp_path / "programs").as_posix()}"]')
    monkeypatch.setenv("PAQUO_QUPATH_SEARCH_CONDA", "false")


def make_qupath(folder: Path, core_jar: str) -> Path:
    """The files that paquo looks for."""
    app, runtime, jvm = _LAYOUTS[platform.system()]
    (folder / app).mkdir(parents=True)
    (folder / app / core_jar).touch()
    (folder / app / "qupath-core-processing-9.9.9.jar").touch()
    (folder / runtime / jvm).parent.mkdir(parents=True)
    (folder / runtime / jvm).touch()
    (folder / runtime / "release").write_text('IMAGE="JDK"\nJAVA_VERSION="21.0.5"\n', "utf-8")
    return folder


def test_qupath_is_found_in_the_usual_places_with_its_versions(tmp_path: Path) -> None:
    folder = make_qupath(tmp_path / "programs" / "QuPath-0.6.0", "qupath-core-0.6.0.jar")

    found = find_installation()

    assert (found.version, found.java_version, found.is_tested) == ("0.6.0", "21.0.5", True)
    assert found.app_dir.is_relative_to(folder)
    assert found.jvm_path.is_relative_to(found.runtime_dir)


def test_a_folder_that_is_named_comes_before_the_usual_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_qupath(tmp_path / "programs" / "QuPath-0.6.0", "qupath-core-0.6.0.jar")
    named = make_qupath(tmp_path / "Mein Programm ü", "qupath-core-0.5.1.jar")
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(named))

    assert find_installation().version == "0.5.1"


def test_the_home_folder_may_be_written_as_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_qupath(tmp_path / "QuPath", "qupath-core-0.6.0.jar")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("PAQUO_QUPATH_DIR", "~/QuPath")

    assert find_installation().version == "0.6.0"


@pytest.mark.parametrize(
    ("core_jar", "version", "is_tested"),
    [
        ("qupath-core-0.5.0.jar", "0.5.0", True),
        ("qupath-core-0.6.0-rc4.jar", "0.6.0-rc4", True),
        ("qupath-core-0.7.2.jar", "0.7.2", True),
        ("qupath-core-0.8.0-SNAPSHOT.jar", "0.8.0-SNAPSHOT", False),
        ("qupath-core-1.0.0.jar", "1.0.0", False),
        ("another.jar", None, False),
    ],
)
def test_the_version_is_that_of_the_core_jar(
    tmp_path: Path, core_jar: str, version: str | None, is_tested: bool
) -> None:
    make_qupath(tmp_path / "programs" / "QuPath", core_jar)

    found = find_installation()

    assert (found.version, found.is_tested) == (version, is_tested)


def test_a_qupath_that_is_too_old_is_refused_with_a_way_to_a_newer_one(tmp_path: Path) -> None:
    make_qupath(tmp_path / "programs" / "QuPath-0.4.4", "qupath-core-0.4.4.jar")

    with pytest.raises(
        QuPathError, match=r"is 0\.4\.4, which is too old: install 0\.5\.1 or newer"
    ):
        find_installation()


def test_no_qupath_at_all_names_three_cures() -> None:
    with pytest.raises(QuPathError) as caught:
        find_installation()

    for fix in ("wsisam-qupath setup", "qupath.github.io", "PAQUO_QUPATH_DIR"):
        assert fix in str(caught.value)


def test_a_named_folder_without_qupath_is_an_error_and_not_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_qupath(tmp_path / "programs" / "QuPath-0.6.0", "qupath-core-0.6.0.jar")
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(tmp_path / "wrong"))

    with pytest.raises(QuPathError, match="which has no QuPath") as caught:
        find_installation()

    assert str(tmp_path / "wrong") in str(caught.value)


def test_a_java_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_qupath(tmp_path / "programs" / "QuPath-0.6.0", "qupath-core-0.6.0.jar")
    monkeypatch.setenv("PAQUO_JVM_PATH_OVERRIDE", str(tmp_path / "libjvm.so"))

    with pytest.raises(QuPathError, match=r"PAQUO_JVM_PATH_OVERRIDE names .*libjvm\.so"):
        find_installation()


@pytest.mark.parametrize("options", ["-Xmx3g -Dname=value", '["-Xmx3g", "-Dname=value"]'])
def test_options_of_the_user_are_kept_however_often_one_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    make_qupath(tmp_path / "programs" / "QuPath-0.6.0", "qupath-core-0.6.0.jar")
    monkeypatch.setenv("PAQUO_JAVA_OPTS", options)

    first, second = find_installation(), find_installation()

    assert first == second
    assert first.jvm_options[:2] == ("-Xmx3g", "-Dname=value")
    assert len(first.jvm_options) == 3  # and java.library.path


def test_settings_that_make_no_sense_are_an_error_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PAQUO_QUPATH_SEARCH_CONDA", "perhaps")

    with pytest.raises(QuPathError, match=r"paquo's settings cannot be read .*perhaps"):
        find_installation()


def test_a_settings_file_in_the_folder_counts(tmp_path: Path) -> None:
    make_qupath(tmp_path / "named", "qupath-core-0.6.0.jar")
    (tmp_path / ".paquo.toml").write_text('qupath_dir = "named"\n', encoding="utf-8")
    code = (
        "from wsisam_qupath.qupath.install.installation import find_installation\n"
        "print(find_installation().version)"
    )

    answer = run_python("-c", code, cwd=tmp_path)

    assert (answer.out.strip(), answer.code) == ("0.6.0", 0)
