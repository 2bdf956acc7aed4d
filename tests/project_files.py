"""Small QuPath projects, written by hand: the files only, without Java.

What QuPath's own reader makes of their ``data.qpdata`` is another matter: it looks whole and holds
nothing. Tests that need objects let QuPath write them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

Json = dict[str, Any]

OPENSLIDE = "qupath.lib.images.servers.openslide.OpenslideServerBuilder"

QPDATA_HEAD = b"\xac\xed\x00\x05w\x15\x00\x13Data file version 3"
QPDATA_TAIL = b"t\x00\x03EOF"
ROI_OBJECT_CLASS = b"r\x00\x20qupath.lib.objects.PathROIObject"
"""What stands in a ``data.qpdata`` that holds an object besides the root."""


def calibration(width: float, height: float, unit: str = "µm") -> Json:
    """A ``pixelCalibration`` as QuPath writes it."""
    return {
        "pixelWidth": {"value": width, "unit": unit},
        "pixelHeight": {"value": height, "unit": unit},
        "zSpacing": {"value": 1.0, "unit": "z-slice"},
        "timeUnit": "SECONDS",
        "timepoints": [],
    }


def metadata(
    *,
    size_px: tuple[int, int] = (2220, 2967),
    mpp: tuple[float, float] | None = (0.5, 0.5),
    planes: tuple[int, int] = (1, 1),
    rgb: bool = True,
) -> Json:
    """The metadata that QuPath keeps of a slide once its image was saved; planes are (z, t)."""
    return {
        "name": "slide",
        "width": size_px[0],
        "height": size_px[1],
        "sizeZ": planes[0],
        "sizeT": planes[1],
        "channelType": "DEFAULT",
        "isRGB": rgb,
        "pixelType": "UINT8",
        "levels": [{"downsample": 1.0, "width": size_px[0], "height": size_px[1]}],
        "pixelCalibration": calibration(1, 1, "px") if mpp is None else calibration(*mpp),
        "magnification": 20.0,
        "preferredTileWidth": 240,
        "preferredTileHeight": 240,
    }


def builder(slide: Path | str, *, args: Sequence[str] = (), metadata: Json | None = None) -> Json:
    """How QuPath opens a slide: a path, or a URI as it stands."""
    found: Json = {
        "builderType": "uri",
        "providerClassName": OPENSLIDE,
        "uri": slide.as_uri() if isinstance(slide, Path) else slide,
        "args": list(args),
    }
    return found if metadata is None else {**found, "metadata": metadata}


def altered(kind: str, inner: Json, *, metadata: Json | None = None) -> Json:
    """A builder that shows what another one shows in a different way."""
    found: Json = {"builderType": kind, "builder": inner}
    return found if metadata is None else {**found, "metadata": metadata}


def image(
    entry_id: object,
    slide: Path | str | Json,
    *,
    name: str | None = None,
    args: Sequence[str] = (),
    metadata: Json | None = None,
) -> Json:
    """An entry of a project's ``images``.

    Args:
        slide: a path, a URI, or a whole server builder, with ``args`` and ``metadata`` of its own.
    """
    server = slide if isinstance(slide, dict) else builder(slide, args=args, metadata=metadata)
    return {
        "serverBuilder": server,
        "entryID": entry_id,
        "randomizedName": "b1330fa6-9065-48bc-89f5-663ab73cc808",
        "imageName": f"image {entry_id}" if name is None else name,
        "metadata": {},
        "tags": [],
    }


def make_project(
    folder: Path,
    images: Sequence[object] = (),
    *,
    version: object = "0.6.0",
    uri: str | None = None,
    classes: Sequence[Json] | None = None,
    file_name: str = "project.qpproj",
) -> Path:
    """Write a project and return the path of its file; ``folder`` is made if it is not there.

    Args:
        images: entries, see :func:`image`, or whatever else is to stand there.
        uri: where the project says that it is; where it is, if None.
        classes: of ``classifiers/classes.json``; no such file if None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name
    content = {
        "version": version,
        "createTimestamp": 1795272388691,
        "modifyTimestamp": 1795272388691,
        "uri": path.as_uri() if uri is None else uri,
        "lastID": len(images),
        "images": list(images),
    }
    _write(path, {key: value for key, value in content.items() if value is not None})
    (folder / "data").mkdir(exist_ok=True)
    if classes is not None:
        (folder / "classifiers").mkdir(exist_ok=True)
        _write(folder / "classifiers" / "classes.json", {"pathClasses": list(classes)})
    return path


def save_data(
    project: Path,
    entry_id: int,
    *,
    n_objects: int | None = 1,
    qpdata: bytes | None = QPDATA_HEAD + QPDATA_TAIL,
) -> Path:
    """Write what QuPath keeps of an image, and return its folder.

    Args:
        n_objects: as ``summary.json`` counts them, with the root; no such file if None.
        qpdata: the bytes of ``data.qpdata``; no such file if None.
    """
    folder = project.parent / "data" / str(entry_id)
    folder.mkdir(parents=True, exist_ok=True)
    if n_objects is not None:
        summary = {"timestamp": 1795264047391, "hierarchy": {"nObjects": n_objects}}
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    if qpdata is not None:
        (folder / "data.qpdata").write_bytes(qpdata)
    return folder


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A file that is there; nothing of it is read."""
    path = tmp_path / "slides" / "a b ü.svs"
    path.parent.mkdir()
    path.touch()
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its bytes, and every folder: to see that nothing changed."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def _write(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
