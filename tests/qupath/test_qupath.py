"""What a real QuPath makes of our files. Skipped where paquo finds none."""

from typing import Any

import numpy as np
import pytest

from fixtures.command_line import identity
from fixtures.qupath_program import told_by_script
from wsisam_qupath import Mpp, Prompt, Result, to_feature, write_features
from wsisam_qupath.geometry import Box
from wsisam_qupath.geometry.polygons import area_um2, mask_to_polygon
from wsisam_qupath.prompts import PathClass
from wsisam_qupath.prompts.planner import Planner
from wsisam_qupath.prompts.results import Provenance
from wsisam_qupath.slide.pyramid import write_pyramid

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


CLASSES = [
    None,
    PathClass("Gland"),
    PathClass("Gland", (0, 122, 255)),
    PathClass("Tumor: Positive", (200, 0, 0)),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What QuPath says of a slide of ours and of outlines of these classes on it."""
    folder = tmp_path_factory.mktemp("ours")
    slide, outlines, script = (folder / n for n in ("s.tiff", "o.geojson", "read.groovy"))
    write_pyramid(slide, np.full((1024, 1024, 3), 200, np.uint8), mpp=MPP.x)
    results = map(ring_result, range(len(CLASSES)), CLASSES)
    write_features(outlines, [to_feature(result, "detection") for result in results])
    script.write_text(READ_OBJECTS, encoding="utf-8")
    (found,) = told_by_script("-i", slide, script, "-a", outlines)
    return found


def ring_result(number: int, path_class: PathClass | None) -> Result:
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
        id=identity(number),
        polygon=geometry,
        predicted_iou=0.875,
        stability_score=0.75,
        area_um2=area_um2(geometry, MPP),
        provenance=Provenance("lite-medsam", "0" * 64, None, None, 1.0, None, "hr", "0.1.0"),
    )


def test_qupath_opens_our_slides_with_their_scale(told: dict[str, Any]) -> None:
    assert (told["width"], told["levels"], told["mpp"]) == (1024, 3, pytest.approx(MPP.x, 1e-3))


@pytest.mark.parametrize(
    ("number", "path_class"),
    list(enumerate(CLASSES)),
    ids=["no class", "no color", "color", "derived"],
)
def test_qupath_reads_our_outlines_as_valid_detections(
    told: dict[str, Any], number: int, path_class: PathClass | None
) -> None:
    (read,) = (one for one in told["objects"] if one["id"] == identity(number))

    assert (read["detection"], read["locked"], read["valid"]) == (True, False, True)
    assert read.get("path_class") == (path_class.name if path_class else None)
    assert read["parts"] == 2
    assert read["area_px"] == pytest.approx(ring_result(number, path_class).polygon.area, abs=5)
    assert read["measurements"]["Predicted IoU"] == pytest.approx(0.875)
    assert read["metadata"]["wsisam_prompt_id"] == "ring"
