"""XML files of ASAP."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from fuzz.mutation import damaged, ring
from wsisam_qupath_training.sources.camelyon import read_camelyon

_NAMES = "abcdefghi"
_ENTITIES = (
    f'<!DOCTYPE a [<!ENTITY {_NAMES[0]} "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {name} "{5 * f"&{before};"}">' for before, name in pairwise(_NAMES))
    + "]>"
)
"""Each holds the one before five times."""


def run(seed: int) -> None:
    """Whatever a file holds, it is read, or noted as damaged."""
    random = Random(seed)
    rows = "".join(_row(random) for _ in range(random.randrange(5)))
    prolog = _ENTITIES if random.random() < 0.1 else ""
    name = "&i;" if prolog else random.choice(["", "x", "&lt;"])
    text = (
        f'<?xml version="1.0"?>{prolog}<ASAP_Annotations><Annotations Name="{name}">{rows}'
        "</Annotations><AnnotationGroups /></ASAP_Annotations>"
    )
    content = text.encode()
    with TemporaryDirectory() as folder:
        Path(folder, "a.tif").touch()
        Path(folder, "a.xml").write_bytes(
            damaged(content, random) if random.random() < 0.5 else content
        )
        found = read_camelyon(Path(folder), dataset="fuzz")
    assert len(found.images) + len(found.damaged) > 0


def _row(random: Random) -> str:
    points = [
        f'<Coordinate Order="{number}" X="{x}" Y="{y}" />'
        for number, (x, y) in enumerate(ring(random))
    ]
    if random.random() < 0.2:
        points.append(
            random.choice(["<Coordinate />", '<Coordinate Order="x" X="nan" Y="1e999"/>'])
        )
    kind = random.choice(["Polygon", "Spline", "Rectangle", "Dot", "PointSet", ""])
    group = random.choice(["_0", "_2", "Tumor", "None", ""])
    return (
        f'<Annotation Name="x" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
        f"<Coordinates>{''.join(points)}</Coordinates></Annotation>"
    )
