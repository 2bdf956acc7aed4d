"""What a real QuPath makes of our files. Skipped where paquo finds none."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsisam_qupath import Mpp, Prompt, Result, to_feature, write_features
from wsisam_qupath.geometry import Box
from wsisam_qupath.planning import Planner
from wsisam_qupath.polygons import area_um2, mask_to_polygon
from wsisam_qupath.prompts import PathClass
from wsisam_qupath.pyramid import write_pyramid
from wsisam_qupath.results import Provenance

pytestmark = pytest.mark.qupath

MPP = Mpp(0.5, 0.5)

READ_OBJECTS = """
import qupath.lib.io.GsonTools
import qupath.lib.io.PathIO
def objects
new FileInputStream(args[0]).withCloseable { objects = PathIO.readObjectsFromGeoJSON(it) }
def server = getCurrentServer()
def told = objects.collect { [
    id: it.getID().toString(), detection: it.isDetection(), locked: it.isLocked(),
    path_class: it.getPathClass()?.toString(), valid: it.getROI().getGeometry().isValid(),
    area_px: it.getROI().getArea(), measurements: it.getMeasurements(), metadata: it.getMetadata(),
    parts: it.getROI().getGeometry().getNumGeometries(),
] }
println 'TOLD ' + GsonTools.getInstance().toJson([
    objects: told, width: server.getWidth(), levels: server.nResolutions(),
    mpp: server.getPixelCalibration().getAveragedPixelSizeMicrons(),
])
"""


@pytest.fixture(scope="module")
def java_command() -> list[str]:
    """Runs QuPath's command line; found the way paquo finds it, without starting a JVM."""
    from paquo import settings
    from paquo._config import to_kwargs
    from paquo.jpype_backend import find_qupath

    settings.reload()  # an earlier test may have changed what it reads
    try:
        found = find_qupath(**{**to_kwargs(settings), "java_opts": []})
    except (ValueError, FileNotFoundError) as exc:
        pytest.skip(f"no QuPath here: {exc}")
    java = Path(found.runtime_dir) / "bin" / "java"
    if not java.is_file():
        pytest.skip(f"the QuPath at {found.app_dir} brings no java program")
    return [str(java), "-cp", str(Path(found.app_dir) / "*"), "qupath.QuPath", "script"]


def ring_result(path_class: PathClass | None) -> Result:
    """A ring and a dot: a hole, two parts."""
    ys, xs = np.mgrid[:256, :256] + 0.5
    distance = np.hypot(xs - 128, ys - 128)
    dot = 12 - np.hypot(xs - 30, ys - 30)
    logits = np.maximum(np.minimum(80 - distance, distance - 30), dot).astype(np.float32)
    prompt = Prompt("ring", l0_box=Box(300, 300, 620, 620), path_class=path_class)
    planner = Planner(mpp=MPP, size_px=256)
    geometry = mask_to_polygon(logits, planner.pair(prompt), simplify_um=0.25, min_area_um2=10.0)
    assert geometry is not None
    return Result(
        prompt=prompt,
        id="1b4e28ba-2fa1-51d2-883f-0016d3cca427",
        l0_geometry=geometry,
        predicted_iou=0.875,
        stability_score=0.75,
        area_um2=area_um2(geometry, MPP),
        provenance=Provenance("lite-medsam", "0" * 64, None, None, 1.0, None, "0.1.0"),
    )


@pytest.mark.parametrize(
    "path_class",
    [
        None,
        PathClass("Gland"),
        PathClass("Gland", (0, 122, 255)),
        PathClass("Tumor: Positive", (200, 0, 0)),
    ],
    ids=["no class", "no colour", "colour", "derived"],
)
def test_qupath_reads_our_outlines_as_valid_detections(
    java_command: list[str], tmp_path: Path, path_class: PathClass | None
) -> None:
    slide, outlines, script = (tmp_path / n for n in ("s.tiff", "o.geojson", "read.groovy"))
    write_pyramid(slide, np.full((1024, 1024, 3), 200, np.uint8), mpp=MPP.x)
    result = ring_result(path_class)
    write_features(outlines, [to_feature(result, "detection")])
    script.write_text(READ_OBJECTS, encoding="utf-8")

    told = run_script(java_command, script, slide, outlines)

    assert (told["width"], told["levels"], told["mpp"]) == (1024, 3, pytest.approx(MPP.x, 1e-3))
    (read,) = told["objects"]
    assert read["id"] == result.id
    assert (read["detection"], read["locked"], read["valid"]) == (True, False, True)
    assert read.get("path_class") == (path_class.name if path_class else None)
    assert read["parts"] == 2
    assert read["area_px"] == pytest.approx(result.l0_geometry.area, abs=5.0)
    assert read["measurements"]["Predicted IoU"] == pytest.approx(0.875)
    assert read["metadata"]["wsisam_prompt_id"] == "ring"


def run_script(command: list[str], script: Path, slide: Path, argument: Path) -> dict[str, Any]:
    done = subprocess.run(
        [*command, "-i", str(slide), str(script), "-a", str(argument)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert lines, done.stderr
    told: dict[str, Any] = json.loads(lines[0].removeprefix("TOLD "))
    return told
