"""Graphs that ship with this package: the default model needs no PyTorch on a CPU.

They are what :mod:`.backends.openvino_export` writes for the model, in two ZIP files: the encoder's
graph, and those of the shipped adapter's decoders. ``scripts/pack_graphs.py`` makes them. A third
one holds the encoder in int8, which ``scripts/quantize_encoder.py`` makes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

from ..errors import REINSTALL, DeviceError
from ..model.adapter import Adapter
from ..model.bases import Base
from ..model.shipped import find_shipped_adapter

FOLDER = Path(__file__).resolve().parent / "graphs"

GRAPH_VERSION = 4
"""Version of the exported graphs, raised when they change, so that older ones are not used."""

ENCODER = "encoder"


@dataclass(frozen=True)
class ReadyGraphs:
    """The graphs of a model, in ZIP files."""

    archives: tuple[Path, ...]

    def unpack(self, folder: Path) -> None:
        """Write the graphs into a folder.

        Raises:
            DeviceError: an archive is damaged.
            OSError: the folder cannot be written.
        """
        for path in self.archives:
            try:
                with ZipFile(path) as archive:
                    archive.extractall(folder)
            except (BadZipFile, EOFError, zlib.error) as exc:
                raise DeviceError(f"{path} is damaged. {REINSTALL}") from exc


def find_ready_graphs(base: Base, adapter: Adapter | None) -> ReadyGraphs | None:
    """Find the graphs that ship for a base and an adapter; None if there are none."""
    shipped = find_shipped_adapter(base.name)
    if adapter is None or shipped is None or adapter.card.tunes_encoder:
        return None
    wanted = {
        FOLDER / f"{base.name}.zip": list_sources(base, None),
        FOLDER / f"{shipped.stem}.zip": list_sources(base, adapter),
    }
    if all(_read_sources(path) == sources for path, sources in wanted.items()):
        return ReadyGraphs(tuple(wanted))
    return None


def find_ready_encoder(base: Base, adapter: Adapter | None) -> ReadyGraphs | None:
    """Find the encoder that ships for a base; None if there is none, or the adapter has its own."""
    return _find_encoder(FOLDER / f"{base.name}.zip", base, adapter)


def find_int8_encoder(base: Base, adapter: Adapter | None) -> ReadyGraphs | None:
    """Find the encoder in int8 of a base; None if there is none, or the adapter has its own."""
    return _find_encoder(FOLDER / f"{base.name}-int8.zip", base, adapter)


def _find_encoder(path: Path, base: Base, adapter: Adapter | None) -> ReadyGraphs | None:
    if adapter is not None and adapter.card.tunes_encoder:
        return None
    return ReadyGraphs((path,)) if _read_sources(path) == list_sources(base, None) else None


def pack_int8_encoder(exported: Path, base: Base, folder: Path = FOLDER) -> Path:
    """Write the archive of an encoder in int8, and return its path.

    Args:
        exported: folder with the graph, under the name of the encoder's graph.
    """
    path = folder / f"{base.name}-int8.zip"
    _pack(path, sorted(exported.glob(f"{ENCODER}.*")), list_sources(base, None))
    return path


def pack_graphs(exported: Path, base: Base, adapter: Adapter, folder: Path = FOLDER) -> None:
    """Write the archives from exported graphs; the same graphs give the same bytes.

    Args:
        exported: folder that :func:`.export_networks` wrote the graphs of both into.
        adapter: the shipped adapter; the encoder is the base's own.
    """
    shipped = find_shipped_adapter(base.name)
    assert shipped is not None, base.name
    encoder = sorted(exported.glob(f"{ENCODER}.*"))
    decoders = sorted(path for path in exported.iterdir() if path not in encoder)
    _pack(folder / f"{base.name}.zip", encoder, list_sources(base, None))
    _pack(folder / f"{shipped.stem}.zip", decoders, list_sources(base, adapter))


def list_sources(base: Base, adapter: Adapter | None) -> tuple[str, ...]:
    """List the version of the graphs and the checksums that they are made from."""
    alone = (str(GRAPH_VERSION), base.sha256)
    return alone if adapter is None else (*alone, adapter.sha256)


def _read_sources(path: Path) -> tuple[str, ...]:
    """Read what the graphs of an archive were made from; nothing if there is no sound archive."""
    try:
        with ZipFile(path) as archive:
            return tuple(archive.comment.decode("ascii", "replace").split("|"))
    except (OSError, BadZipFile):
        return ()


def _pack(path: Path, files: Iterable[Path], sources: tuple[str, ...]) -> None:
    with ZipFile(path, "w", ZIP_DEFLATED, compresslevel=9) as archive:
        for file in files:
            info = ZipInfo(file.name)  # of 1980, whenever it is made
            info.compress_type = ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, file.read_bytes())
        archive.comment = "|".join(sources).encode("ascii")
