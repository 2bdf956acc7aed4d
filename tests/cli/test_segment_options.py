"""What the options of segment change, and prompts of every form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import shape

from fixtures.command_line import GLAND, Feature, rectangle, run, vertices, write_prompts
from fixtures.segment_runs import segment
from wsisam_qupath.options import OutlineOptions

pytestmark = pytest.mark.slow

SIDE_PX = 512


@pytest.fixture(scope="module")
def gland(tissue_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Feature:
    """The outline of one gland with the options as they stand."""
    _, (feature,) = segment(tissue_path, tmp_path_factory.mktemp("gland"), boxes=(GLAND,))
    return feature


def test_simplify_leaves_out_vertices_and_names_another_result(
    tissue_path: Path, tmp_path: Path, gland: Feature
) -> None:
    _, (coarse,) = segment(
        tissue_path, tmp_path, boxes=(GLAND,), options=OutlineOptions(simplify_um=3.0)
    )

    assert vertices(coarse) < vertices(gland) / 2
    assert coarse["id"] != gland["id"]


def test_results_may_be_annotations(tissue_path: Path, tmp_path: Path, gland: Feature) -> None:
    _, (drawn,) = segment(
        tissue_path, tmp_path, boxes=(GLAND,), options=OutlineOptions(object_type="annotation")
    )

    assert drawn["properties"]["objectType"] == "annotation"
    assert drawn["geometry"] == gland["geometry"]


def test_what_is_smaller_than_min_area_is_nothing_and_named(
    tissue_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prompts = write_prompts(tmp_path / "p.geojson", [rectangle("gland [1]", GLAND)])

    outcome, features = segment(
        tissue_path, tmp_path, prompts=prompts, options=OutlineOptions(min_area_um2=1e6)
    )

    assert features == []
    assert [empty.id for empty in outcome.empty] == ["gland [1]"]
    out, err = capfd.readouterr()
    assert out == ""
    assert "Nothing at gland [1]: what the model sees there is smaller than 1e+06 µm²" in err
    assert "1 prompt: 0 outlined, 1 empty; 0 skipped." in err


def test_negative_points_go_with_the_box_round_them(
    tissue_path: Path, tmp_path: Path, gland: Feature
) -> None:
    outcome, (carved,) = segment(
        tissue_path, tmp_path, boxes=(GLAND,), negatives=((320.0, 85.0), (362.0, 172.0))
    )

    (prompt,) = outcome.prompt_set.prompts
    assert prompt.l0_negatives == ((320.0, 85.0), (362.0, 172.0))
    assert carved["geometry"] != gland["geometry"]


def test_points_mark_one_object_together_or_one_each(tissue_path: Path, tmp_path: Path) -> None:
    points = ((366.0, 250.0), (420.0, 250.0), (300.0, 250.0))

    together, _ = segment(tissue_path, tmp_path, points=points)
    each, _ = segment(
        tissue_path, tmp_path, points=points, options=OutlineOptions(points_as="each")
    )

    assert [p.l0_positives for p in together.prompt_set.prompts] == [points]
    assert [p.l0_positives for p in each.prompt_set.prompts] == [(point,) for point in points]
    assert each.outlined + len(each.empty) == 3


def test_the_size_of_objects_sets_the_scale_at_which_points_are_answered(
    tissue_path: Path, tmp_path: Path
) -> None:
    scales = []
    for size_um in (700.0, 1000.0):
        _, (feature,) = segment(
            tissue_path,
            tmp_path,
            points=((90.0, 90.0),),
            options=OutlineOptions(object_size_um=size_um),
        )
        scales.append(float(feature["properties"]["metadata"]["wsisam_hr_mpp"]))

    # The first of 1, √2, 2, ... µm/px at which the object takes at most 0.65 of 256 px.
    assert scales == pytest.approx([4 * 2**0.5, 8])


def test_mpp_replaces_what_the_file_states(
    tissue_path: Path, tmp_path: Path, gland: Feature
) -> None:
    _, (feature,) = segment(tissue_path, tmp_path, boxes=(GLAND,), mpp=0.25)

    area_um2 = feature["properties"]["measurements"]["Area µm^2"]
    assert area_um2 == pytest.approx(shape(feature["geometry"]).area * 0.25**2, rel=1e-3)
    assert feature["id"] != gland["id"]


def test_a_picture_without_a_scale_is_segmented_with_mpp(
    tissue: np.ndarray, tmp_path: Path, gland: Feature
) -> None:
    picture = tmp_path / "picture.png"
    Image.fromarray(tissue).save(picture)

    _, (feature,) = segment(picture, tmp_path, boxes=(GLAND,), mpp=0.5)

    here, there = shape(feature["geometry"]), shape(gland["geometry"])
    assert here.intersection(there).area / here.union(there).area > 0.95


@pytest.mark.parametrize("form", ["list", "feature", "geometry"])
def test_every_form_that_qupath_writes_gives_the_same_outline(
    tissue_path: Path, tmp_path: Path, gland: Feature, form: str
) -> None:
    feature = rectangle("gland", GLAND)
    forms = {"list": [feature], "feature": feature, "geometry": feature["geometry"]}
    prompts = tmp_path / "p.geojson"
    prompts.write_text(json.dumps(forms[form]), encoding="utf-8")

    _, (outlined,) = segment(tissue_path, tmp_path, prompts=prompts)

    assert outlined["geometry"] == gland["geometry"]


def test_no_features_in_give_no_features_out(tissue_path: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.geojson", [])

    answer = run("segment", tissue_path, prompts)

    assert answer.code == 0
    assert json.loads(answer.out) == {"type": "FeatureCollection", "features": []}
    assert answer.words[0].startswith("0 prompts: 0 outlined, 0 empty; 0 skipped.")


def test_a_box_larger_than_the_slide_is_answered(tissue_path: Path, tmp_path: Path) -> None:
    everything = (-1e6, -1e6, 1e6, 1e6)

    outcome, _ = segment(tissue_path, tmp_path, boxes=((0, 0, SIDE_PX, SIDE_PX), everything))

    assert outcome.outlined + len(outcome.empty) == 2


def test_ids_that_come_twice_yield_two_results(tissue_path: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.geojson", [rectangle("twin", GLAND)] * 2)

    _, (first, second) = segment(tissue_path, tmp_path, prompts=prompts)

    assert first["geometry"] == second["geometry"]
    assert first["id"] != second["id"]
    assert first["properties"]["metadata"]["wsisam_prompt_id"] == "twin"


def test_of_very_many_that_are_left_out_only_the_first_are_named(
    tissue_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    off = [rectangle(f"off {number}", (600, 600, 700, 700)) for number in range(60)]
    prompts = write_prompts(tmp_path / "p.geojson", [*off, rectangle("gland", GLAND)])

    segment(tissue_path, tmp_path, prompts=prompts)

    named = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Skipped")]
    assert named[:50] == [f"Skipped off {n}: it lies outside of the slide." for n in range(50)]
    assert named[50:] == ["Skipped 10 more."]
