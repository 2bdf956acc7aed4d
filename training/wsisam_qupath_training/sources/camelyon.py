"""Outlines in XML beside slides, of ASAP (CAMELYON16, CAMELYON17) or ImageScope.

CAMELYON16's notes: annotations of the groups ``_0`` and ``_1`` are tumour, those of ``_2`` are
no tumour and were cut out of the others. CAMELYON17 names them ``metastases`` and ``normal``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import shapely
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.errors import PromptError, SlideError
from wsisam_qupath.geojson.cleaning import clean_area
from wsisam_qupath.geojson.shapes import UnusableError
from wsisam_qupath.geometry.validity import keep_polygons
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.slide import SlideReference
from wsisam_qupath.slide.names import strip_format

from ..dataset import AnnotatedImage, Dataset, Truth
from . import image_scope
from .drawn import Drawn
from .groups import GroupOf
from .slides import named_files, slides_in

TUMOR = "Tumor"

_TUMOR_GROUPS = ("_0", "_1", "tumor", "metastases", "none", "")
_HOLE_GROUPS = ("_2", "normal", "exclusion")
_AREAS = ("polygon", "spline", "rectangle")


def read_camelyon(
    folder: Path, *, dataset: str, group_of: GroupOf = str, slides: Path | None = None
) -> Dataset:
    """Read ``NAME.xml`` with ``NAME.tif`` (or another slide) for each NAME.

    The µm/px that ImageScope's files state are used. Groups that are none of CAMELYON's, and layers
    of ImageScope, are classes of their own. Of the slides of CAMELYON16 a few
    are not annotated completely; its notes say which.

    Args:
        group_of: finds the patient by the slide's name without its ending.
        slides: folder of the slides, if they are not beside the XML; its subfolders are searched
            too.

    Raises:
        SlideError: there is no folder ``slides``.
    """
    known = slides_in(slides, below=True) if slides else slides_in(folder)
    images: list[AnnotatedImage] = []
    damaged: list[Skipped] = []
    repaired = 0
    for file in named_files(folder, ".xml"):
        try:
            slide = known.find(file.stem)
            drawn = _read_annotations(file)
        except (SlideError, PromptError) as exc:
            damaged.append(Skipped(file.name, str(exc)))
            continue
        truths, without_rest = _cut_out(drawn)
        damaged += [
            Skipped(f"{file.name}, {name}", reason) for name, reason in (*drawn.lost, *without_rest)
        ]
        repaired += drawn.repaired
        group = group_of(strip_format(slide.name))
        reference = SlideReference(str(slide), drawn.mpp, as_qupath=False)
        images.append(AnnotatedImage(file.stem, dataset, group, reference, truths))
    return Dataset(tuple(images), tuple(damaged), repaired)


def _read_annotations(file: Path) -> Drawn:
    """Read the annotations of an XML file.

    Raises:
        PromptError: it cannot be read, or is of another program.
    """
    try:
        root = ElementTree.fromstring(file.read_bytes())
    except OSError as exc:
        raise PromptError(f"It cannot be read ({exc.strerror}): check its permissions.") from exc
    except ElementTree.ParseError as exc:
        raise PromptError(f"It is not XML ({exc}): copy it again from its source.") from exc
    if image_scope.is_image_scope(root):
        return image_scope.read_image_scope(root)
    if root.tag != "ASAP_Annotations":
        raise PromptError("It holds no annotations of ASAP or ImageScope: leave it out.")
    return _read_asap(root)


def _read_asap(root: Element) -> Drawn:
    objects: list[Truth] = []
    holes: list[Polygon | MultiPolygon] = []
    lost: list[tuple[str, str]] = []
    repaired = 0
    for number, annotation in enumerate(root.iterfind("Annotations/Annotation"), start=1):
        # Names are distinct in CAMELYON, and nowhere else.
        name = f"annotation {number}"
        try:
            outline, was_repaired = _outline(annotation)
        except UnusableError as exc:
            lost.append((name, str(exc)))
            continue
        repaired += was_repaired
        group = annotation.get("PartOfGroup", "").strip()
        if group.lower() in _HOLE_GROUPS:
            holes.append(outline)
        else:
            class_name = TUMOR if group.lower() in _TUMOR_GROUPS else group
            objects.append(Truth(str(number), outline, class_name))
    return Drawn(tuple(objects), tuple(holes), tuple(lost), repaired)


def _outline(annotation: Element) -> tuple[Polygon | MultiPolygon, bool]:
    """Read the area of an annotation, level-0 px, and whether it had to be repaired.

    Raises:
        UnusableError: it has none.
    """
    kind = annotation.get("Type", "Polygon")
    if kind.lower() not in _AREAS:
        raise UnusableError(f"it is no area but {kind[:40]}")
    rows = annotation.findall("Coordinates/Coordinate")
    try:
        # In the order of the document, as ASAP draws them: Order is 0 everywhere, or missing, in
        # files of other programs.
        corners = [[_number(row, "X"), _number(row, "Y")] for row in rows]
    except ValueError as exc:
        raise UnusableError("its coordinates are not all numbers") from exc
    return clean_area([[corners]])


def _number(row: Element, name: str) -> float:
    # ASAP writes a comma where the computer's language does.
    return float(row.get(name, "").replace(",", "."))


def _cut_out(drawn: Drawn) -> tuple[tuple[Truth, ...], list[tuple[str, str]]]:
    """Cut holes out of objects; also list the objects of which nothing remains."""
    if not drawn.holes:
        return drawn.objects, []
    truths: list[Truth] = []
    lost: list[tuple[str, str]] = []
    for truth in drawn.objects:
        outline = _subtract(truth.l0_outline, drawn.holes)
        if outline.is_empty:
            lost.append((f"annotation {truth.id}", "it lies wholly in what is cut out"))
        else:
            truths.append(Truth(truth.id, outline, truth.class_name))
    return tuple(truths), lost


def _subtract(
    outline: Polygon | MultiPolygon, holes: Sequence[Polygon | MultiPolygon]
) -> Polygon | MultiPolygon:
    near = [hole for hole in holes if hole.intersects(outline)]
    return keep_polygons(outline.difference(shapely.union_all(near))) if near else outline
