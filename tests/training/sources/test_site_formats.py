"""Public data sets in the form in which their sites give them out, on images by formula."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import shapely
import tifffile
from PIL import Image
from shapely.geometry import Polygon, mapping

from fixtures.training_data import (
    HEIGHT_PX,
    OUTLINES,
    WIDTH_PX,
    assert_drawn,
    ellipse,
    label_slides,
    read,
    reasons,
    tissue_of,
)
from wsisam_qupath.project.create.matching import find_annotations, match

HOLE = ellipse(150, 180, 20, 10)


def write_plain_tiff(path: Path) -> Path:
    """RGB strips that state no µm/px, as from a site that cut fields from slides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, tissue_of(OUTLINES), photometric="rgb", metadata=None)
    return path


# GlaS: NAME.bmp, NAME_anno.bmp, Grade.csv


def write_glas(folder: Path) -> None:
    folder.mkdir()
    for name in ("train_1", "train_2", "testA_1"):
        Image.fromarray(tissue_of(OUTLINES)).save(folder / f"{name}.bmp")
        Image.fromarray(label_slides(OUTLINES)).save(folder / f"{name}_anno.bmp")
    (folder / "Grade.csv").write_text(
        "name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)\n"
        "testA_1, 5, benign, adenomatous\n"
        "train_1, 1, benign, healthy\n"
        "train_2, 5, malignant, moderately differentiated\n",
        encoding="utf-8",
    )


def test_glas_is_read_with_its_masks_and_its_table_of_patients(tmp_path: Path) -> None:
    folder = tmp_path / "Warwick QU Dataset (Released 2016_07_08)"
    write_glas(folder)

    found = read(folder, truth="_anno.bmp", mpp=0.62, groups=folder / "Grade.csv")

    assert not found.damaged
    assert [(one.name, one.group) for one in found.images] == [
        ("testA_1", "5"),
        ("train_1", "1"),
        ("train_2", "5"),
    ]
    for image in found.images:
        for truth, outline in zip(image.truths, OUTLINES, strict=True):
            # Between pixel centers: a mask ends half a pixel inside.
            assert truth.l0_outline.symmetric_difference(outline).area < 0.06 * outline.area
    assert found.images[0].slide.open().mpp.x == pytest.approx(0.62)


# MoNuSeg: NAME.tif in one folder, NAME.xml of ImageScope in another


def write_image_scope(
    path: Path,
    regions: Sequence[tuple[Polygon, str]],
    *,
    layer: str = "",
    mpp: str = "0.252000",
    kind: str = "0",
) -> None:
    """Regions, and whether each is negative, with all attributes that ImageScope writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(
        f'<Region Id="{number}" Type="{kind}" Zoom="1" Selected="0" ImageLocation="" '
        f'ImageFocus="0" Length="97.9" Area="500.0" LengthMicrons="24.7" AreaMicrons="31.7" '
        f'Text="" NegativeROA="{negative}" InputRegionId="0" Analyze="1" DisplayId="{number}">'
        "<Attributes/><Vertices>"
        + "".join(
            f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in shapely.get_coordinates(outline).tolist()
        )
        + "</Vertices></Region>"
        for number, (outline, negative) in enumerate(regions, start=1)
    )
    stated = f' MicronsPerPixel="{mpp}"' if mpp else ""
    path.write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<Annotations{stated}><Annotation Id="1" '
        f'Name="{layer}" ReadOnly="0" NameReadOnly="0" LineColorReadOnly="0" Incremental="0" '
        'Type="4" LineColor="65280" Visible="1" Selected="1" MarkupImagePath="" MacroName="">'
        '<Attributes><Attribute Name="Description" Id="0" Value=""/></Attributes><Regions>'
        '<RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region" ColumnWidth="-1"/>'
        f"</RegionAttributeHeaders>{rows}</Regions><Plots/></Annotation></Annotations>",
        encoding="utf-8",
    )


def test_monuseg_is_read_with_its_xml_and_the_pixel_size_in_it(tmp_path: Path) -> None:
    images, drawn = tmp_path / "Tissue Images", tmp_path / "Annotations"
    for name in ("TCGA-18-5592-01Z-00-DX1", "TCGA-38-6178-01Z-00-DX1"):
        write_plain_tiff(images / f"{name}.tif")
        write_image_scope(drawn / f"{name}.xml", [(outline, "0") for outline in OUTLINES])

    found = read(drawn, slides=images)

    assert not found.damaged
    for image in found.images:
        assert_drawn(image, OUTLINES)
        assert image.slide.open().mpp.x == pytest.approx(0.252)
    assert found.classes == {"object": 6}


def test_layers_of_imagescope_are_classes_and_negative_regions_are_cut_out(tmp_path: Path) -> None:
    write_plain_tiff(tmp_path / "a.tif")
    write_image_scope(
        tmp_path / "a.xml", [(OUTLINES[0], "0"), (OUTLINES[2], "0"), (HOLE, "1")], layer="Gland"
    )

    (image,) = read(tmp_path).images

    assert_drawn(image, [OUTLINES[0], OUTLINES[2].difference(HOLE)])
    assert {truth.class_name for truth in image.truths} == {"Gland"}


def test_regions_of_imagescope_that_have_no_outline_are_named(tmp_path: Path) -> None:
    for name, kind in (("a", "0"), ("b", "4")):
        write_plain_tiff(tmp_path / f"{name}.tif")
        write_image_scope(tmp_path / f"{name}.xml", [(OUTLINES[0], "0")], kind=kind)

    found = read(tmp_path)

    assert [image.name for image in found.images if image.truths] == ["a"]
    assert "b.xml, region 1: it is neither drawn by hand nor a rectangle but of type 4" in reasons(
        found
    )


@pytest.mark.parametrize("stated", ["", "0", "nan", "unknown"])
def test_imagescope_without_a_pixel_size_leaves_it_to_the_user(tmp_path: Path, stated: str) -> None:
    write_plain_tiff(tmp_path / "a.tif")
    write_image_scope(tmp_path / "a.xml", [(OUTLINES[0], "0")], mpp=stated)

    (image,) = read(tmp_path, mpp=0.5).images

    assert image.slide.open().mpp.x == pytest.approx(0.5)


# HuBMAP, kidney: NAME.tiff, NAME.json, NAME-anatomical-structure.json


def write_hubmap(folder: Path, name: str) -> None:
    write_plain_tiff(folder / f"{name}.tiff")
    whole = shapely.box(5, 5, WIDTH_PX - 5, HEIGHT_PX - 5)
    for ending, outlines, class_name in (
        ("", OUTLINES, "glomerulus"),
        ("-anatomical-structure", [whole.buffer(-1).simplify(0)], "Cortex"),
    ):
        # All have the same id: it is QuPath 0.2's word for an annotation.
        features = [
            {
                "type": "Feature",
                "id": "PathAnnotationObject",
                "geometry": mapping(outline),
                "properties": {
                    "classification": {"name": class_name, "colorRGB": -3140401},
                    "isLocked": True,
                    "measurements": [],
                },
            }
            for outline in outlines
        ]
        (folder / f"{name}{ending}.json").write_text(json.dumps(features), encoding="utf-8")


def test_hubmap_is_read_with_its_json_files(tmp_path: Path) -> None:
    for name in ("0486052bb", "095bf7a1f"):
        write_hubmap(tmp_path / "train", name)

    found = read(tmp_path / "train", mpp=0.5)

    assert {image.name for image in found.images} == {"0486052bb", "095bf7a1f"}
    for image in found.images:
        assert_drawn(image, OUTLINES)
    assert found.classes == {"glomerulus": 6}
    assert sorted(one.partition(":")[0] for one in reasons(found)) == [
        "0486052bb-anatomical-structure.json",
        "095bf7a1f-anatomical-structure.json",
    ]


def test_hubmaps_json_files_go_into_a_project_with_their_slides(tmp_path: Path) -> None:
    write_hubmap(tmp_path / "train", "0486052bb")
    slide = tmp_path / "train" / "0486052bb.tiff"

    matched = match(find_annotations(tmp_path / "train", [slide]).sources, [slide])

    assert matched.without_slide == ("0486052bb-anatomical-structure.json",)
    features = list(matched.by_slide[slide].open())
    assert len({one["id"] for one in features}) == len(OUTLINES)
    for feature, outline in zip(features, OUTLINES, strict=True):
        drawn = shapely.geometry.shape(feature["geometry"])
        assert drawn.symmetric_difference(outline).area < 0.01 * outline.area
        assert feature["properties"]["classification"]["name"] == "glomerulus"
