"""The public Python API, and the examples of the README and docs/python.md run as they stand."""

from __future__ import annotations

import re
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wsisam_qupath as ws
from fixtures.command_line import rectangle, run, run_python, write_prompts
from fixtures.models import tissue_rgb
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.model.shipped import find_shipped_adapter
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.slide import Slide
from wsisam_qupath.slide.pyramid import write_pyramid

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples(page: str) -> list[str]:
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


PAGE = examples("docs/python.md")
WITH_MAIN = [code for code in PAGE if "__main__" in code]
(ON_A_PROJECT,) = (code for code in WITH_MAIN if "segment_project" in code)
(ON_A_CLUSTER,) = (code for code in WITH_MAIN if "distributed" in code)


@pytest.fixture(scope="module")
def segmenter(plain_openvino: Predictor) -> ws.Segmenter:
    return ws.Segmenter(plain_openvino)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files that the examples name; tissue where they have their boxes."""
    folder = tmp_path_factory.mktemp("examples")
    rgb = np.full((6800, 5800, 3), 245, dtype=np.uint8)
    rgb[5900:6412, 4950:5462] = tissue_rgb()
    write_pyramid(folder / "slide.svs", rgb, mpp=0.5)
    Image.fromarray(tissue_rgb()).save(folder / "picture.png")
    write_prompts(folder / "prompts.geojson", [rectangle("gland", (4960, 5960, 5250, 6400))])
    adapter = find_shipped_adapter("lite-medsam")
    assert adapter is not None
    shutil.copy(adapter, folder / "mine.safetensors")
    return folder


@pytest.mark.slow
def test_the_examples_of_the_python_page_run_one_after_the_other(folder: Path) -> None:
    code = "\n".join(code for code in PAGE if code not in WITH_MAIN)
    ended = run_python("-W", "error", "-c", code, cwd=folder)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("POLYGON")
    assert "base: 'sam-vit-x' is none of lite-medsam" in ended.out
    assert (folder / "outlines.geojson").is_file()


@pytest.mark.slow
def test_the_example_of_the_readme_runs(folder: Path) -> None:
    (code,) = (code for code in examples("README.md") if "import wsisam_qupath" in code)
    ended = run_python("-W", "error", "-c", code, cwd=folder)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("POLYGON")


@pytest.mark.slow
def test_the_example_with_dask_runs(folder: Path) -> None:
    pytest.importorskip("distributed")
    script = folder / "on_a_cluster.py"
    script.write_text(ON_A_CLUSTER, encoding="utf-8")
    ended = run_python(script, cwd=folder)

    assert ended.code == 0, ended.err
    assert "'Polygon'" in ended.out


@pytest.mark.qupath
def test_the_example_with_a_project_runs(folder: Path, qupath: QuPathProcess) -> None:
    made = run("create", "project", "--images", "slide.svs", "--annotations", "prompts.geojson",
               cwd=folder)  # fmt: skip
    assert made.code == 0, made.err
    shutil.copytree(folder / "project", folder, dirs_exist_ok=True)
    script = folder / "on_a_project.py"
    script.write_text(ON_A_PROJECT, encoding="utf-8")
    ended = run_python(script, cwd=folder)

    assert (ended.code, ended.out) == (0, "slide.svs done 1\n"), ended.err
    assert (folder / "report.html").is_file()


def test_every_public_name_is_there_and_no_other_is_promised() -> None:
    for name in ws.__all__:
        assert getattr(ws, name) is not None
    assert dir(ws) == ws.__all__ == sorted(ws.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        _ = ws.load_everything


def test_both_packages_carry_their_types() -> None:
    for package in ("wsisam_qupath", "wsisam_qupath_training"):
        assert files(package).joinpath("py.typed").is_file()


def test_a_box_without_an_object_gives_no_polygon_and_an_iou_of_zero(
    segmenter: ws.Segmenter, tissue_slide: Slide
) -> None:
    nothing_is_large_enough = ws.OutlineOptions(min_area_um2=1e9)
    boxes = [(262, 0, 470, 302)]
    (found,) = segmenter.segment(tissue_slide, boxes=boxes)
    (empty,) = segmenter.segment(tissue_slide, boxes=boxes, options=nothing_is_large_enough)

    assert found.polygon is not None
    assert found.predicted_iou > 0
    assert (empty.polygon, empty.predicted_iou) == (None, 0.0)


def test_coordinates_give_what_prompts_of_a_file_give(
    segmenter: ws.Segmenter, tissue_slide: Slide, tmp_path: Path
) -> None:
    prompts = write_prompts(tmp_path / "p.geojson", [rectangle("gland", (262, 0, 470, 302))])
    (marked,) = segmenter.segment(tissue_slide, boxes=[(470, 302, 262, 0)])
    (read,) = segmenter.segment(tissue_slide, ws.read_prompts(prompts))

    assert marked.polygon == read.polygon


def test_a_box_off_the_slide_is_refused(segmenter: ws.Segmenter, tissue_slide: Slide) -> None:
    with pytest.raises(ws.WsiSamError, match="outside of the slide"):
        list(segmenter.segment(tissue_slide, boxes=[(0, 0, 100, 100), (600, 600, 700, 700)]))
