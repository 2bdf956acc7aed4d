"""Writing results as GeoJSON that QuPath reads."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely.geometry import MultiPolygon, Point, Polygon, box, shape

from wsisam_qupath.errors import OutputError
from wsisam_qupath.files import check_writable
from wsisam_qupath.geojson import encode_features, prompts_from_geojson, to_feature, write_features
from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.geometry.polygons import mask_to_polygon
from wsisam_qupath.prompts import PathClass, Plane, Prompt
from wsisam_qupath.prompts.results import (
    Candidate,
    Provenance,
    Result,
    compute_result_id,
    list_candidates,
)

PROVENANCE = Provenance("lite-medsam", "ab" * 32, None, None, 1.0, 2.0, "hr", "0.1.0")
PROMPT = Prompt("0dbd1b4c-6b25-4f44-9b5e-d4a2f6a5d3b1", l0_box=Box(0, 0, 10, 10))
HOLED = box(0, 0, 10, 10).difference(box(2, 2, 4, 4))


def result(
    geometry: Polygon | MultiPolygon = HOLED,
    prompt: Prompt = PROMPT,
    provenance: Provenance = PROVENANCE,
    predicted_iou: float = 0.75,
) -> Result:
    return Result(prompt, str(uuid.UUID(int=7)), geometry, predicted_iou, 0.5, 6.0, provenance)


def test_a_feature_says_all_that_qupath_keeps() -> None:
    written = to_feature(result(), "detection")

    geometry = written.pop("geometry")
    assert list(geometry) == ["type", "coordinates"]
    assert shape(geometry).equals(HOLED)
    assert written == {
        "type": "Feature",
        "id": "00000000-0000-0000-0000-000000000007",
        "properties": {
            "objectType": "detection",
            "isLocked": False,
            "measurements": {"Predicted IoU": 0.75, "Stability score": 0.5, "Area µm^2": 6.0},
            "metadata": {
                "wsisam_prompt_id": "0dbd1b4c-6b25-4f44-9b5e-d4a2f6a5d3b1",
                "wsisam_type": "detection",
                "wsisam_drawn": "0.00 0.00 10.00 10.00 96.00 48.00",
                "wsisam_asked": '{"area":"0.00 0.00 10.00 10.00 100.00 40.00",'
                '"inside":[],"outside":[]}',
                "wsisam_base": "lite-medsam",
                "wsisam_base_sha256": "ab" * 32,
                "wsisam_hr_mpp": "1",
                "wsisam_lr_mpp": "2",
                "wsisam_patch": "hr",
                "wsisam_version": "0.1.0",
                "wsisam_answers": "3",
                "wsisam_format": "2",
            },
        },
    }


def test_an_adapter_is_named_and_a_missing_lr_patch_is_not() -> None:
    adapted = replace(
        PROVENANCE, adapter="glands", adapter_sha256="cd" * 32, lr_mpp=None, hr_mpp=0.4967
    )

    metadata = to_feature(result(provenance=adapted), "annotation")["properties"]["metadata"]

    assert metadata["wsisam_adapter"] == "glands"
    assert metadata["wsisam_adapter_sha256"] == "cd" * 32
    assert metadata["wsisam_hr_mpp"] == "0.4967"
    assert "wsisam_lr_mpp" not in metadata


@pytest.mark.parametrize(
    ("path_class", "classification"),
    [
        (PathClass("Tumor"), "Tumor"),
        (PathClass("Tumor: Positive"), "Tumor: Positive"),
        (PathClass("Tumor", (1, 2, 3)), {"name": "Tumor", "color": [1, 2, 3]}),
        (
            PathClass("Tumor: Positive", (1, 2, 3)),
            {"names": ["Tumor", "Positive"], "color": [1, 2, 3]},
        ),
    ],
)
def test_classes_are_written_in_forms_that_qupath_reads(
    path_class: PathClass, classification: object
) -> None:
    written = to_feature(result(prompt=replace(PROMPT, path_class=path_class)), "detection")

    assert written["properties"]["classification"] == classification


def test_the_plane_is_written_where_it_is_not_the_default() -> None:
    elsewhere = to_feature(result(prompt=replace(PROMPT, plane=Plane(-1, 3, 0))), "detection")

    assert elsewhere["geometry"]["plane"] == {"c": -1, "z": 3, "t": 0}


def test_measurements_that_are_not_finite_are_left_out() -> None:
    written = to_feature(result(predicted_iou=math.nan), "detection")

    assert list(written["properties"]["measurements"]) == ["Stability score", "Area µm^2"]


def test_parts_and_holes_survive() -> None:
    parts = MultiPolygon([HOLED, box(20, 0, 25.555, 5)])

    written = shape(to_feature(result(parts), "detection")["geometry"])

    assert written.geom_type == "MultiPolygon"
    assert written.area == pytest.approx(96 + 5 * 5.56, abs=0.03)


def test_an_object_below_the_grid_is_not_lost() -> None:
    written = shape(to_feature(result(box(0, 0, 0.001, 0.001)), "detection")["geometry"])

    assert written.area == pytest.approx(1e-6)


def test_results_that_are_read_again_are_no_prompts() -> None:
    features = [to_feature(result(), "annotation")]

    found = prompts_from_geojson(features, hr_l0_box_of=lambda _: Box(0, 0, 1, 1))

    assert [skipped.reason for skipped in found.skipped] == ["an earlier result"]


@given(
    arrays("float32", (8, 8), elements=st.floats(-4, 4, width=32)),
    st.sampled_from([0.02, 0.25, 2.0]),
    st.floats(0, 1e5),
)
def test_the_rounded_outline_is_valid_whatever_the_mask(
    mask: Any, hr_mpp: float, l0_x: float
) -> None:
    pair = PatchPair(l0_x, 1234.5, hr_mpp, 256, Mpp(0.25, 0.26))
    pixel_um2 = (hr_mpp * 256 / 8) ** 2
    outline = mask_to_polygon(mask, pair, simplify_um=0.0, min_area_um2=pixel_um2 / 20)
    if outline is None:
        return

    geometry = to_feature(result(outline), "detection")["geometry"]

    written = shape(geometry)
    assert written.is_valid
    assert geometry["type"] in ("Polygon", "MultiPolygon")
    assert written.symmetric_difference(outline).area <= 0.01 * outline.length + 1e-9
    flat = json.dumps(geometry["coordinates"]).replace("[", "").replace("]", "").split(",")
    assert all(float(text) == round(float(text), 2) for text in flat)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_file_is_written_whole_and_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "out.geojson"
    path.write_text("old", encoding="utf-8")
    features = [to_feature(result(), "detection"), to_feature(result(HOLED), "annotation")]

    write_features(path, iter(features))

    assert read(path) == {"type": "FeatureCollection", "features": features}
    assert names_in(tmp_path) == ["out.geojson"]


def test_no_features_are_an_empty_collection(tmp_path: Path) -> None:
    write_features(tmp_path / "out.geojson", [])

    assert read(tmp_path / "out.geojson") == {"type": "FeatureCollection", "features": []}


def test_a_failure_on_the_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.geojson"
    path.write_text("old", encoding="utf-8")

    def broken() -> Iterator[dict[str, Any]]:
        yield to_feature(result(), "detection")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_features(path, broken())

    assert path.read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == ["out.geojson"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sets no limit on a file's size")
def test_a_file_that_does_not_fit_leaves_what_was_there(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "out.geojson"
    path.write_text("old", encoding="utf-8")
    features = [to_feature(result(), "detection")] * 100
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            write_features(path, features)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert path.read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == ["out.geojson"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits the whole path")
def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose another name"):
        check_writable(tmp_path / ("x" * 300))


def test_a_link_is_written_through(tmp_path: Path) -> None:
    real, link = tmp_path / "real.geojson", tmp_path / "link.geojson"
    real.write_text("old", encoding="utf-8")
    try:
        link.symlink_to(real)
    except OSError:
        pytest.skip("this system lets no one make links")

    write_features(link, [])

    assert link.is_symlink()
    assert read(real)["features"] == []


def test_places_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(OutputError, match="There is no folder"):
        check_writable(tmp_path / "none" / "out.geojson")
    with pytest.raises(OutputError, match="There is no folder"):
        write_features(tmp_path / "none" / "out.geojson", [])
    assert names_in(tmp_path) == []


@pytest.mark.skipif(not Path(os.devnull).exists(), reason="NUL is no path on Windows")
def test_a_device_is_refused() -> None:
    with pytest.raises(OutputError, match="not an ordinary file"):
        check_writable(os.devnull)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_write_protected_folder_or_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.geojson"
    path.touch(mode=0o400)
    with pytest.raises(OutputError, match="is write-protected: allow"):
        check_writable(path)
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="is write-protected: choose"):
        check_writable(tmp_path / "new.geojson")


def test_a_check_touches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.geojson"
    path.write_text("old", encoding="utf-8")
    before = path.stat().st_mtime_ns

    check_writable(path)

    assert path.stat().st_mtime_ns == before
    assert names_in(tmp_path) == ["out.geojson"]


def test_what_is_written_is_ascii_and_so_right_on_any_stream() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    named = replace(PROMPT, path_class=PathClass("Drüse 腺"))

    stream.writelines(encode_features([to_feature(result(prompt=named), "detection")]))
    stream.flush()

    properties = json.loads(raw.getvalue())["features"][0]["properties"]
    assert properties["classification"] == "Drüse 腺"
    assert "Area µm^2" in properties["measurements"]


OUTLINE = Prompt(
    "p",
    l0_outline=HOLED,
    l0_positives=((1.0, 1.5),),
    l0_negatives=((3.0, 3.0),),
    path_class=PathClass("Tumor"),
)


def id_of(
    prompt: Prompt = OUTLINE, adapter: str | None = None, **options: str | int | float | bool | None
) -> str:
    return compute_result_id(
        prompt, "ab" * 32, adapter, {"simplify_um": 0.5, "tta": False, **options}
    )


@pytest.mark.parametrize(
    ("answers", "pinned"),
    [
        (1, "f7f06a04-8821-58e3-8006-34d4cf836da7"),
        (2, "ddc58b57-0911-5d60-b9fa-a9f227d95b48"),
        (3, "46b4615a-ae6c-5aba-a440-64179c5bca3e"),
    ],
)
def test_the_id_of_a_result_is_pinned(answers: int, pinned: str) -> None:
    options: dict[str, float | bool] = {"simplify_um": 0.5, "tta": False}

    assert compute_result_id(OUTLINE, "ab" * 32, None, options, answers=answers) == pinned


def test_the_id_of_a_result_does_not_depend_on_the_process() -> None:
    code = (
        "from wsisam_qupath.geometry import Box; from wsisam_qupath.prompts import Prompt;"
        "from wsisam_qupath.prompts.results import compute_result_id;"
        "print(compute_result_id(Prompt('p', Box(0, 0, 1.25, 2)), 'ab', None, {'b': 1, 'a': 0.1}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}

    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )

    here = compute_result_id(Prompt("p", Box(0, 0, 1.25, 2)), "ab", None, {"a": 0.1, "b": 1})
    assert other.stdout.strip() == here


def test_the_class_and_the_way_of_drawing_do_not_change_the_id() -> None:
    turned = HOLED.reverse()
    noisy = Polygon([(x + 1e-9, y) for x, y in HOLED.exterior.coords], [HOLED.interiors[0].coords])

    assert id_of(replace(OUTLINE, path_class=None)) == id_of()
    assert id_of(replace(OUTLINE, l0_outline=turned)) == id_of()
    assert id_of(replace(OUTLINE, l0_outline=noisy)) == id_of()
    assert id_of(replace(OUTLINE, l0_outline=MultiPolygon([HOLED]))) == id_of()


def test_all_that_decides_a_result_changes_its_id() -> None:
    ids = [
        id_of(),
        id_of(replace(OUTLINE, id="q")),
        id_of(replace(OUTLINE, l0_outline=Point(0, 0).buffer(5))),
        id_of(replace(OUTLINE, l0_box=Box(0, 0, 1, 1))),
        id_of(replace(OUTLINE, l0_positives=((1.0, 1.51),))),
        id_of(replace(OUTLINE, l0_negatives=())),
        id_of(replace(OUTLINE, plane=Plane(z=1))),
        id_of(adapter="cd" * 32),
        id_of(simplify_um=0.6),
        id_of(tta=True),
        compute_result_id(OUTLINE, "ef" * 32, None, {"simplify_um": 0.5, "tta": False}),
    ]

    assert len(set(ids)) == len(ids)
    assert {uuid.UUID(made).version for made in ids} == {5}


def test_what_else_a_click_may_mean_is_a_result_of_its_own_with_a_rank() -> None:
    other = Candidate(box(0, 0, 20, 20), 0.5, 0.4, 24.0, PROVENANCE)
    several = replace(result(), others=(other,))

    first, second = list_candidates(several)

    assert to_feature(first, "detection")["id"] == several.id
    assert to_feature(first, "detection")["properties"]["measurements"]["Rank"] == 1
    assert to_feature(second, "detection")["properties"]["measurements"]["Rank"] == 2
    assert second.id != first.id
    assert list_candidates(result()) == [result()]
