"""Inputs that are almost right: documents with something strange in them, damaged bytes."""

from __future__ import annotations

import json
from random import Random
from typing import Any

_STRANGE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    10**400,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\0",
    "\ud800",
    "x" * 5000,
    "../../etc/passwd",
    "file:///C:/x.svs",
    [],
    {},
    [[]],
    [[[0, 0]]],
    {"type": "Feature"},
    [None, [None]],
)

_DEEPEST = 300


def changed(document: Any, random: Random) -> Any:
    """The same with one part of it replaced, left out, doubled, or nested deeper."""
    if isinstance(document, dict) and document and random.random() < 0.9:
        key = random.choice(list(document))
        return _with_item(document, key, random)
    if isinstance(document, list) and document and random.random() < 0.9:
        place = random.randrange(len(document))
        copy = list(document)
        match random.randrange(6):
            case 0:
                del copy[place]
            case 1:
                copy.insert(place, copy[place])
            case 2:
                random.shuffle(copy)
            case _:
                copy[place] = changed(copy[place], random)
        return copy
    return _strange(document, random)


def _with_item(document: dict[str, Any], key: str, random: Random) -> dict[str, Any]:
    copy = dict(document)
    match random.randrange(8):
        case 0:
            del copy[key]
        case 1:
            copy[random.choice(["type", "id", "geometry", "properties", "x"])] = copy[key]
        case _:
            copy[key] = changed(copy[key], random)
    return copy


def _strange(value: Any, random: Random) -> Any:
    match random.randrange(8):
        case 0:
            nested = value
            for _ in range(random.randrange(_DEEPEST)):
                nested = [nested]
            return nested
        case 1 if isinstance(value, float):
            return value * random.choice([-1, 1e-9, 1e9, 0.1])
        case 2 if isinstance(value, (int, float)):
            return str(value)
        case _:
            return random.choice(_STRANGE)


def text_of(document: Any, random: Random) -> bytes:
    """JSON, sometimes with bytes that changed."""
    content = json.dumps(document).encode("utf-8", "replace")
    return damaged(content, random) if random.random() < 0.2 else content


def damaged(content: bytes, random: Random) -> bytes:
    """Some bytes replaced, left out, doubled or cut off."""
    found = bytearray(content)
    for _ in range(random.randrange(1, 8)):
        if not found:
            return bytes(random.randbytes(8))
        place, length = random.randrange(len(found)), random.choice([1, 1, 1, 4, 64])
        match random.randrange(5):
            case 0:
                found[place] = random.randrange(256)
            case 1:
                del found[place : place + length]
            case 2:
                found[place:place] = found[place : place + length]
            case 3:
                found[place:place] = random.choice([b"\\", b'"', b"\0", b"\xff", b"[" * 50])
            case 4 if random.random() < 0.3:
                del found[place:]
    return bytes(found)


def ring(random: Random) -> list[list[float]]:
    """Any ring: convex, crossing itself, of few or many vertices, with repeated ones."""
    count = random.choice([0, 1, 2, 3, 4, 5, 12, 60, 300])
    scale = random.choice([1e-6, 1, 100, 5000, 1e12])
    points = [
        [random.uniform(0, scale), random.choice([random.uniform(0, scale), 7])]
        for _ in range(count)
    ]
    if points and random.random() < 0.5:
        points.append(points[0])
    if len(points) > 2 and random.random() < 0.3:
        points.insert(1, points[0])
    return points


def feature(random: Random) -> dict[str, Any]:
    """A GeoJSON feature, as QuPath might have written it."""
    kind = random.choice(["Polygon", "MultiPolygon", "Point", "MultiPoint", "LineString"])
    point = [random.uniform(-10, 600), random.uniform(-10, 600)]
    rings = [ring(random) for _ in range(random.choice([1, 1, 1, 2, 3]))]
    coordinates: Any = {
        "Polygon": rings,
        "MultiPolygon": [rings, [ring(random)]],
        "Point": point,
        "MultiPoint": [point, [300, 300], point],
        "LineString": [point, [300, 300]],
    }[kind]
    properties: dict[str, Any] = {
        "objectType": random.choice(["annotation", "detection", "cell", "tile", "x"]),
        "classification": random.choice(
            [None, "Tumor", {"name": "A: B", "color": [1, 2, 3]}, {"names": ["Ignore*"]}]
        ),
        "measurements": {"Area": 1.5},
        "metadata": {"a": "b"},
    }
    if random.random() < 0.1:
        properties["childObjects"] = [feature(random)]
    return {
        "type": "Feature",
        "id": random.choice(["x", 7, "00000000-0000-4000-8000-000000000000"]),
        "geometry": {
            "type": kind,
            "coordinates": coordinates,
            "plane": {"c": -1, "z": 0, "t": 0},
        },
        "properties": properties,
    }


def collection(random: Random) -> Any:
    """A GeoJSON document with up to a handful of changes."""
    features = [feature(random) for _ in range(random.randrange(4))]
    document: Any = random.choice(
        [{"type": "FeatureCollection", "features": features}, features, *features]
    )
    for _ in range(random.randrange(5)):
        document = changed(document, random)
    return document
