"""QuPath, Python and projects below folders with names that Java's list of paths cannot hold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from wsisam_qupath.errors import QuPathError
from wsisam_qupath.files import CACHE_VARIABLE
from wsisam_qupath.qupath.install.installation import find_installation
from wsisam_qupath.qupath.jvm import class_path

ODD = "bär! 100%25 #1 [x]; $HOME" + (" a:b" if os.name != "nt" else "")

STORY = """
from pathlib import Path
import jpype
import sys
from wsisam_qupath.qupath.jvm.about import check_opens, describe
from wsisam_qupath.qupath.jvm.creation import NewImage, add_images
from wsisam_qupath.qupath.jvm.process import QuPathProcess

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    project = folder / "project" / "project.qpproj"
    project.parent.mkdir()
    with QuPathProcess() as process:
        process.run(add_images, project, [NewImage(folder / "slide.tif")], "brightfield-h-e")
        n_images = process.run(check_opens, project)
        print(jpype.__file__, n_images, process.run(describe).qupath_version)
"""


@pytest.mark.qupath
@pytest.mark.usefixtures("qupath")
@pytest.mark.parametrize("depth", [1, 9])
def test_qupath_works_from_odd_folders_and_in_them(tmp_path: Path, grey: Path, depth: int) -> None:
    folder = Path(tmp_path, *[ODD] * depth)
    installed = find_installation()
    shutil.copytree(
        installed.app_dir.parent.parent, folder / "QuPath", symlinks=True, copy_function=link
    )
    copy_jpype(folder / "site")
    shutil.copyfile(grey, folder / "slide.tif")
    (folder / "story.py").write_text(STORY, "utf-8")
    paths = [str(folder / "site"), *filter(None, sys.path)]
    if any(os.pathsep in path for path in paths):
        paths[0] = str(tmp_path / "plain")  # Python's own list of paths cannot hold it either
        (tmp_path / "plain").symlink_to(folder / "site")

    done = subprocess.run(
        [sys.executable, folder / "story.py", folder],
        env={
            **os.environ,
            "PAQUO_QUPATH_DIR": str(folder / "QuPath"),
            "PYTHONPATH": os.pathsep.join(paths),
            CACHE_VARIABLE: str(folder / "cache"),
            "LC_ALL": "C",  # knows no umlaut
        },
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )

    assert done.stdout.split()[-2:] == ["1", installed.version], done.stderr
    project = json.loads((folder / "project" / "project.qpproj").read_text("utf-8"))
    assert project["version"] == installed.version
    assert not list((folder / "cache").rglob("*.jar"))


def test_classes_in_plain_folders_are_read_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_path, "_find_support", lambda: tmp_path / "org.jpype.jar")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))

    assert class_path.choose_places(tmp_path) == [tmp_path / "cache"]
    assert class_path.prepare(tmp_path, None) == tmp_path


def test_without_a_plain_folder_the_error_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(QuPathError, match=rf"Java cannot read .*bär.*{CACHE_VARIABLE}"):
        class_path.prepare(tmp_path / "bär", None)


def copy_jpype(site: Path) -> None:
    spec = find_spec("jpype")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    shutil.copytree(package, site / "jpype")
    for file in (*package.parent.glob("_jpype*"), package.parent / "org.jpype.jar"):
        if file.is_file():
            shutil.copyfile(file, site / file.name)


def link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
