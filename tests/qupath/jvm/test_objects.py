"""Objects placed, replaced and left alone: what QuPath itself then sees is the truth."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import shapely.geometry

from fixtures.qupath_builders import (
    HOLE,
    KEPT,
    SQUARE,
    TRIANGLE,
    apply,
    feature,
    files_of,
    placed,
    result,
)
from fixtures.qupath_fixtures import (
    Seen,
    add_objects,
    add_tma_grid,
    colors_in_file,
    limit_files_to,
    make_project,
    objects_in,
    resave,
    tma_core_names,
    validity,
    write_slide,
)
from wsisam_qupath.errors import ImageError
from wsisam_qupath.geojson.provenance import is_drawn, sign_outline
from wsisam_qupath.qupath.jvm.objects import class_colors, read_image, stage_change
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.qupath.values import Change, Placed

pytestmark = pytest.mark.qupath


def seen_by_id(qupath: QuPathProcess, project: Path) -> dict[str, Seen]:
    return {one.id: one for one in qupath.run(objects_in, project, "1")}


@pytest.mark.parametrize(
    ("stated", "name", "color"),
    [
        (None, None, None),
        ("Gland", "Gland", None),
        ({"name": "Vessel", "color": [0, 122, 255]}, "Vessel", 0xFF007AFF - 2**32),
        ("Odd: Derived", "Odd: Derived", None),
        ({"names": ["Nerve", "Cut"], "color": [1, 2, 3]}, "Nerve: Cut", 0xFF010203 - 2**32),
    ],
)
def test_a_result_arrives_with_all_that_it_states(
    qupath: QuPathProcess, project: Path, stated: Any, name: str | None, color: int | None
) -> None:
    new = result(
        plane={"c": -1, "z": 3, "t": 1},
        measurements={"Predicted IoU": 0.875, "Area µm^2": 12.5},
        name="Drüse 1",
        isLocked=True,
        **({} if stated is None else {"classification": stated}),
    )

    staged = apply(qupath, project, Change(1, (), placed(new)))

    (seen,) = qupath.run(objects_in, project, "1")
    assert staged.n_objects == 2
    assert seen == Seen(
        id=new["id"],
        type="PathDetectionObject",
        parent=None,
        path_class=name,
        color=seen.color if color is None else color,
        name="Drüse 1",
        is_locked=True,
        plane=(-1, 3, 1),
        wkt=seen.wkt,
        measurements={"Predicted IoU": 0.875, "Area µm^2": 12.5},
        metadata=KEPT,
    )
    assert shapely.equals(shapely.from_wkt(seen.wkt), shapely.Polygon(TRIANGLE))


def test_an_annotation_can_be_placed_too(qupath: QuPathProcess, project: Path) -> None:
    apply(qupath, project, Change(1, (), placed(result(objectType="annotation"))))

    (seen,) = qupath.run(objects_in, project, "1")
    assert (seen.type, seen.is_locked, seen.metadata) == ("PathAnnotationObject", False, KEPT)


@pytest.mark.parametrize(
    ("geometry_type", "coordinates"),
    [
        ("Polygon", [TRIANGLE]),
        ("Polygon", [SQUARE]),
        ("Polygon", [SQUARE, HOLE]),
        ("MultiPolygon", [[TRIANGLE]]),
        ("MultiPolygon", [[TRIANGLE], [SQUARE, HOLE]]),
    ],
    ids=["polygon", "rectangle", "hole", "one part", "two parts"],
)
def test_every_outline_arrives_as_it_was(
    qupath: QuPathProcess, project: Path, geometry_type: str, coordinates: Any
) -> None:
    new = result(geometry_type, coordinates)

    apply(qupath, project, Change(1, (), placed(new)))

    (seen,) = qupath.run(objects_in, project, "1")
    (read,) = qupath.run(read_image, project, "1").results
    expected = shapely.geometry.shape(new["geometry"])
    assert shapely.equals(shapely.from_wkt(seen.wkt), expected)
    assert shapely.equals(shapely.geometry.shape(read["geometry"]), expected)


def star(rng: np.random.Generator, center: float, n: int = 60) -> np.ndarray[Any, Any]:
    """A thin, ragged outline on hundredths of a pixel, as results are."""
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    radii = rng.uniform(0.3, 20.0, n)
    xy = center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ring = np.concatenate([xy, xy[:1]])
    return np.round(ring, 2)


@pytest.mark.parametrize("center", [50.0, 70_000.0, 140_000.0, 1_000_000.0])
def test_outlines_are_valid_and_in_their_place_wherever_they_lie(
    qupath: QuPathProcess, project: Path, center: float
) -> None:
    rng = np.random.default_rng(1)
    stars = [shapely.set_precision(shapely.Polygon(star(rng, center)), 0.01) for _ in range(100)]
    rings = [one.difference(shapely.Point(center, center).buffer(0.2)) for one in stars]
    outlines = [shapely.set_precision(one, 0.01) for one in stars + rings]
    mapped = [shapely.geometry.mapping(one) for one in outlines]
    signed = [{**KEPT, "wsisam_drawn": sign_outline(one)} for one in outlines]
    new = [
        result(one["type"], one["coordinates"], metadata=metadata)
        for one, metadata in zip(mapped, signed, strict=True)
    ]

    apply(qupath, project, Change(1, (), placed(*new)))

    assert all(qupath.run(validity, project, "1"))
    read = {one["id"]: one for one in qupath.run(read_image, project, "1").results}
    step_px = max(2.0**-7, float(np.spacing(np.float32(center))))
    for one, outline in zip(new, outlines, strict=True):
        there = shapely.geometry.shape(read[one["id"]]["geometry"])
        assert shapely.hausdorff_distance(there, outline) <= 2 * step_px + 0.01
        assert is_drawn(there, one["properties"]["metadata"]["wsisam_drawn"])


def test_an_outline_smaller_than_the_grid_is_kept(qupath: QuPathProcess, project: Path) -> None:
    speck = [[0.5, 0.5], [0.502, 0.5], [0.5, 0.502], [0.5, 0.5]]

    apply(qupath, project, Change(1, (), placed(result(coordinates=[speck]))))

    assert qupath.run(read_image, project, "1").n_objects == 2


def test_results_go_below_their_parents_and_else_below_the_root(
    qupath: QuPathProcess, project: Path
) -> None:
    inner = feature(coordinates=[HOLE])
    outer = feature(coordinates=[SQUARE], childObjects=[inner])
    qupath.run(add_objects, project, "1", [outer])
    below_outer, below_inner, homeless, free = (result() for _ in range(4))
    change = Change(
        3,
        (),
        (
            Placed(below_outer, outer["id"]),
            Placed(below_inner, inner["id"]),
            Placed(homeless, str(uuid.uuid4())),
            Placed(free, None),
        ),
    )

    apply(qupath, project, change)

    parents = {one.id: one.parent for one in seen_by_id(qupath, project).values()}
    assert parents == {
        outer["id"]: None,
        inner["id"]: outer["id"],
        below_outer["id"]: outer["id"],
        below_inner["id"]: inner["id"],
        homeless["id"]: None,
        free["id"]: None,
    }


@pytest.mark.parametrize("order", [1, -1], ids=["parents first", "children first"])
def test_children_of_removed_objects_move_up_to_their_parents(
    qupath: QuPathProcess, project: Path, order: int
) -> None:
    theirs = feature(coordinates=[HOLE])
    childless, sibling = result(), result()
    deeper = result(childObjects=[theirs, childless])
    old = result(childObjects=[deeper])
    outer = feature(coordinates=[SQUARE], childObjects=[old, sibling])
    qupath.run(add_objects, project, "1", [outer])
    new = result()
    removed = (old["id"], deeper["id"], childless["id"], sibling["id"])[::order]

    staged = apply(qupath, project, Change(7, removed, placed(new, below=outer["id"])))

    parents = {one.id: one.parent for one in seen_by_id(qupath, project).values()}
    assert parents == {outer["id"]: None, theirs["id"]: outer["id"], new["id"]: outer["id"]}
    assert staged.n_objects == 4


def test_a_result_can_take_the_place_of_one_with_the_same_id(
    qupath: QuPathProcess, project: Path
) -> None:
    old = result()
    apply(qupath, project, Change(1, (), placed(old)))
    new = {**result(coordinates=[SQUARE]), "id": old["id"]}

    apply(qupath, project, Change(2, (old["id"],), placed(new)))

    (seen,) = qupath.run(objects_in, project, "1")
    assert shapely.equals(shapely.from_wkt(seen.wkt), shapely.Polygon(SQUARE))


def test_cells_tiles_and_cores_are_left_alone(qupath: QuPathProcess, project: Path) -> None:
    nucleus = {"type": "Polygon", "coordinates": [HOLE]}
    cell = {**feature(coordinates=[SQUARE], objectType="cell"), "nucleusGeometry": nucleus}
    tile = feature(objectType="tile", measurements={"Mean": 3.5})
    drawn = feature(name="by hand", isLocked=True, measurements={"NaN": "NaN"})
    qupath.run(add_tma_grid, project, "1")
    count = qupath.run(add_objects, project, "1", [cell, tile, drawn])
    before = qupath.run(objects_in, project, "1")

    new = result()
    apply(qupath, project, Change(count, (), placed(new, below=drawn["id"])))

    after = qupath.run(objects_in, project, "1")
    assert repr([one for one in after if one.id != new["id"]]) == repr(before)
    assert len(after) == len(before) + 1
    assert qupath.run(tma_core_names, project, "1") == [False, True]


def test_the_summary_is_the_one_that_qupath_writes(qupath: QuPathProcess, project: Path) -> None:
    qupath.run(add_tma_grid, project, "1")
    drawn = [feature(), feature(classification="Gland"), feature(objectType="cell")]
    count = qupath.run(add_objects, project, "1", drawn)
    new = placed(result(), result(classification="Odd: Derived"))

    staged = apply(qupath, project, Change(count, (), new))

    theirs = qupath.run(resave, project, "1")
    del theirs["timestamp"]
    assert staged.summary == theirs


def test_the_summary_of_an_image_that_had_none_is_complete(
    qupath: QuPathProcess, project: Path
) -> None:
    shutil.rmtree(project.parent / "data" / "1")
    (project.parent / "data" / "1").mkdir()

    staged = apply(qupath, project, Change(1, (), placed(result())))

    theirs = qupath.run(resave, project, "1")
    del theirs["timestamp"]
    assert staged.summary == theirs


def test_staging_leaves_the_files_in_use_as_they_are(qupath: QuPathProcess, project: Path) -> None:
    qupath.run(add_objects, project, "1", [feature()])
    shutil.rmtree(project.parent / "classifiers")
    before = files_of(project)
    to = project.parent / "data" / "1" / "new"

    staged = qupath.run(stage_change, project, "1", Change(2, (), placed(result())), to)

    assert staged.path == to
    after = files_of(project)
    del after[str(to.relative_to(project.parent))]
    assert after == before


@pytest.mark.parametrize(
    ("n_objects", "removes_unknown", "adds_known", "message"),
    [
        (3, False, False, "has changed on disk since it was read"),
        (2, True, False, "has changed on disk since it was read"),
        (2, False, True, "holds some of the new objects already"),
    ],
)
def test_a_change_of_something_else_is_refused(
    qupath: QuPathProcess,
    project: Path,
    n_objects: int,
    removes_unknown: bool,
    adds_known: bool,
    message: str,
) -> None:
    known = result()
    qupath.run(add_objects, project, "1", [known])
    remove = (str(uuid.uuid4()),) if removes_unknown else ()
    add = placed(known if adds_known else result())
    before = files_of(project)

    with pytest.raises(ImageError, match=message):
        apply(qupath, project, Change(n_objects, remove, add))

    assert files_of(project) == before


@pytest.mark.skipif(os.name == "nt", reason="file sizes cannot be limited there")
def test_a_full_disk_leaves_nothing_behind(project: Path) -> None:
    before = files_of(project)
    new = placed(*(result() for _ in range(2000)))

    with QuPathProcess() as process:
        process.run(read_image, project, "1")  # QuPath unpacks libraries at first
        process.run(limit_files_to, 100_000)
        with pytest.raises(
            ImageError, match="make room on its disk, and check that you may write there"
        ):
            apply(process, project, Change(1, (), new))

    assert files_of(project) == before


def test_a_folder_that_is_not_there_is_said(
    qupath: QuPathProcess, project: Path, tmp_path: Path
) -> None:
    change = Change(1, (), placed(result()))

    with pytest.raises(ImageError, match=r"Writing the objects of Präparat 1\.tif"):
        qupath.run(stage_change, project, "1", change, tmp_path / "nowhere" / "new")


def test_qupath_chooses_the_colours_of_classes_that_state_none(qupath: QuPathProcess) -> None:
    stated = {"Tumor": None, "Never met": None, "Blue one": (0, 0, 255)}

    colors = qupath.run(class_colors, stated)

    assert colors["Tumor"] == 0xFFC80000 - 2**32
    assert colors["Blue one"] == 0xFF0000FF - 2**32
    assert colors["Never met"] == qupath.run(class_colors, {"Never met": None})["Never met"]


def test_a_project_keeps_its_colours_where_another_came_before(
    qupath: QuPathProcess, tmp_path: Path
) -> None:
    slide = write_slide(tmp_path / "s.tif")
    colors = {"red": -65536, "green": -16711936}
    projects: Sequence[Path] = [qupath.run(make_project, tmp_path / c, [slide]) for c in colors]
    for one, color in zip(projects, colors.values(), strict=True):
        listed = {"pathClasses": [{"name": "Contested", "color": color}]}
        path = one.parent / "classifiers" / "classes.json"
        path.write_text(json.dumps(listed), encoding="utf-8")

    for one in projects:
        apply(qupath, one, Change(1, (), placed(result(classification="Contested"))))

    for one, color in zip(projects, colors.values(), strict=True):
        with QuPathProcess() as unbiased:
            written = unbiased.run(colors_in_file, one.parent / "data" / "1" / "data.qpdata")
        assert written == {"Contested": color}
