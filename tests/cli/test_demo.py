from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import shape

from fixtures.command_line import Answer, features_of, run
from wsisam_qupath.cli.demo_run import MARKS, run_demo
from wsisam_qupath.errors import QuPathError, SlideError
from wsisam_qupath.options import ModelSpec
from wsisam_qupath.qupath.install.installation import find_installation
from wsisam_qupath.slide import open_slide

pytestmark = [pytest.mark.slow, pytest.mark.walk]

FILES = {"ihc.tiff", "ihc.geojson", "outlines.geojson", "overlay.png"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """The demo's folder and words, after the first of all runs."""
    folder = tmp_path_factory.mktemp("some where") / "not there yet"
    return folder, run("demo", "--out", folder)


def there_is_a_qupath() -> bool:
    try:
        find_installation()
    except QuPathError:
        return False
    return True


def test_the_demo_writes_its_four_files_and_names_them(demo: tuple[Path, Answer]) -> None:
    folder, answer = demo

    assert (answer.code, answer.out) == (0, "")
    assert {path.name for path in folder.iterdir()} - {"project", "report.html"} == FILES
    assert all(str(folder / name) in answer.err for name in FILES)


def test_with_a_qupath_the_demo_makes_a_project_and_says_what_it_reads_back(
    demo: tuple[Path, Answer],
) -> None:
    folder, answer = demo
    if not there_is_a_qupath():
        assert "no QuPath was found" in answer.err
        assert not (folder / "project").exists()
        return

    assert "7 annotations and 7 outlines, as QuPath reads it" in answer.err
    assert (folder / "project" / "project.qpproj").is_file()
    assert (folder / "report.html").is_file()


def test_its_slide_is_a_pyramid_with_a_scale(demo: tuple[Path, Answer]) -> None:
    import openslide

    with open_slide(demo[0] / "ihc.tiff") as slide:
        assert (slide.mpp.x, slide.mpp.y) == pytest.approx((0.5, 0.5))
        assert (slide.width_px, slide.height_px) == (512, 512)
    with openslide.OpenSlide(demo[0] / "ihc.tiff") as levels:
        assert levels.level_count >= 2


def test_every_prompt_of_it_is_outlined_where_it_is(demo: tuple[Path, Answer]) -> None:
    prompts = {f["id"]: f for f in features_of(demo[0] / "ihc.geojson")}
    outlines = features_of(demo[0] / "outlines.geojson")

    named = [f["properties"]["metadata"]["wsisam_prompt_id"] for f in outlines]
    assert named == list(prompts) == [mark.id for mark in MARKS]
    for name, outline in zip(named, outlines, strict=True):
        drawn, found = shape(prompts[name]["geometry"]), shape(outline["geometry"])
        assert found.is_valid
        assert drawn.intersection(found).area > 0.2 * drawn.area, name
        assert (
            outline["properties"]["classification"] == prompts[name]["properties"]["classification"]
        )


def test_its_picture_shows_the_tissue(demo: tuple[Path, Answer]) -> None:
    with Image.open(demo[0] / "overlay.png") as picture:
        pixels = np.asarray(picture)

    assert pixels.shape == (800, 800, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1000


def test_a_second_run_gives_the_same_files(demo: tuple[Path, Answer]) -> None:
    folder, _ = demo
    first = {name: (folder / name).read_bytes() for name in FILES}

    # In its own folder, as `make demo` is run.
    answer = run("demo", "--out", folder.name, cwd=folder.parent)

    assert answer.code == 0
    assert {name: (folder / name).read_bytes() for name in FILES} == first


def test_without_scikit_image_the_demo_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)  # as if it were not installed

    with pytest.raises(SlideError, match="pip install scikit-image"):
        run_demo(tmp_path / "demo", ModelSpec())
    assert list(tmp_path.iterdir()) == []
