"""CAMELYON's outlines, as they are read to evaluate on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from fixtures.training_data import (
    BOW_TIE,
    OUTLINES,
    REGION,
    assert_drawn,
    ellipse,
    read,
    reasons,
    write_slide,
)


def write_asap(file: Path, *annotations: tuple[str, BaseGeometry], kind: str = "Polygon") -> None:
    """Outlines with their groups, as ASAP writes them; Order counts backwards, and says nothing."""
    rows = []
    for number, (group, outline) in enumerate(annotations):
        coordinates = list(enumerate(shapely.get_coordinates(outline)[:-1].tolist()))
        points = "".join(
            f'<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in coordinates[::-1]
        )
        rows.append(
            f'<Annotation Name="Annotation {number}" Type="{kind}" PartOfGroup="{group}" '
            f'Color="#F4FA58"><Coordinates>{points}</Coordinates></Annotation>'
        )
    file.write_text(
        f'<?xml version="1.0"?>\n<ASAP_Annotations><Annotations>{"".join(rows)}</Annotations>'
        "<AnnotationGroups /></ASAP_Annotations>",
        encoding="utf-8",
    )


def test_camelyons_outlines_lose_what_is_cut_out_of_them(tmp_path: Path) -> None:
    hole = ellipse(150, 180, 20, 10)
    write_slide(tmp_path / "slides" / "tumor" / "tumor_001.tif")
    folder = tmp_path / "lesion_annotations"
    folder.mkdir()
    write_asap(folder / "tumor_001.xml", ("_0", OUTLINES[0]), ("_2", hole), ("_1", OUTLINES[2]))

    (image,) = read(folder, slides=tmp_path / "slides").images

    assert_drawn(image, [OUTLINES[0], OUTLINES[2].difference(hole)])
    assert image.truths[0].class_name == "Tumor"
    assert (image.name, image.group) == ("tumor_001", "tumor_001")


def test_camelyon17_is_read_by_patient(tmp_path: Path) -> None:
    for node in (1, 4):
        write_slide(tmp_path / f"patient_004_node_{node}.tif")
        write_asap(tmp_path / f"patient_004_node_{node}.xml", ("metastases", OUTLINES[node % 2]))

    found = read(tmp_path)

    assert [image.group for image in found.images] == ["patient_004", "patient_004"]
    assert [image.part for image in found.images] == ["train", "train"]


def test_groups_of_ones_own_are_classes(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif")
    write_asap(tmp_path / "a.xml", ("Gland", OUTLINES[0]), ("Vessel", OUTLINES[1]))

    assert read(tmp_path).classes == {"Gland": 1, "Vessel": 1}


def test_xml_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    for name in "abcd":
        write_slide(tmp_path / f"{name}.tif")
    write_asap(tmp_path / "a.xml", ("_0", OUTLINES[0]), ("_0", OUTLINES[1]), ("_2", REGION))
    write_asap(tmp_path / "b.xml", ("_0", OUTLINES[0]), kind="Dot")
    (tmp_path / "c.xml").write_text("<ASAP_Annotations>", encoding="utf-8")
    (tmp_path / "d.xml").write_text("<Annotations />", encoding="utf-8")
    write_asap(tmp_path / "e.xml", ("_0", OUTLINES[0]))
    write_slide(tmp_path / "f.tif")
    write_asap(tmp_path / "f.xml", ("_0", OUTLINES[0]), ("_0", BOW_TIE))

    found = read(tmp_path)

    assert [image.name for image in found.images if image.truths] == ["f"]
    assert found.repaired == 1
    first, second, dot, broken, foreign, absent = reasons(found)
    assert first == "a.xml, annotation 1: it lies wholly in what is cut out"
    assert second == "a.xml, annotation 2: it lies wholly in what is cut out"
    assert dot == "b.xml, annotation 1: it is no area but Dot"
    assert broken.startswith("c.xml: It is not XML (")
    assert foreign == "d.xml: It holds no annotations of ASAP or ImageScope: leave it out."
    assert absent.startswith("e.xml: its slide is not in ")


@pytest.mark.parametrize("number", ["NaN", "", "ten"])
def test_camelyons_coordinates_that_are_no_numbers_are_named(tmp_path: Path, number: str) -> None:
    write_slide(tmp_path / "a.tif")
    write_asap(tmp_path / "a.xml", ("_0", OUTLINES[0]), ("_0", OUTLINES[1]))
    text = (tmp_path / "a.xml").read_text(encoding="utf-8")
    x, y = shapely.get_coordinates(OUTLINES[1])[0]
    broken = text.replace(f'X="{x}" Y="{y}"', f'X="{number}" Y="{y}"')
    (tmp_path / "a.xml").write_text(broken, encoding="utf-8")

    found = read(tmp_path)

    assert len(found.images[0].truths) == 1
    assert reasons(found)[0].startswith("a.xml, annotation 2: its coordinates are not all ")


@pytest.mark.parametrize("order", ['Order="0" ', ""], ids=["0 everywhere", "missing"])
def test_coordinates_stay_in_the_order_of_the_document(tmp_path: Path, order: str) -> None:
    file = tmp_path / "a.xml"
    write_slide(tmp_path / "a.tif")
    write_asap(file, ("_0", OUTLINES[0]))
    text = re.sub(r'Order="[0-9]+" ', order, file.read_text("utf-8"))
    file.write_text(text, encoding="utf-8")

    (field,) = read(tmp_path).images

    assert_drawn(field, OUTLINES[:1])
