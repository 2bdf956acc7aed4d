"""Graphs that ship with this package: the default model needs no PyTorch on a CPU.

They are what :mod:`.backends.openvino_export` writes for the model, in two ZIP files: the graph of
the base's encoder, and those of the shipped adapter's decoders. ``scripts/pack_graphs.py`` makes
them. An encoder that an adapter makes of the base's by narrow matrices is made where it is used.

That needs the weights in floats, so that for int8 each encoder has a ZIP file: the base's, and the
shipped adapter's if it brings one. ``scripts/quantize_encoder.py`` makes them. Encoders are told
apart by their own checksums: another adapter with the same one finds it too.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

from ..errors import REINSTALL, DeviceError
from ..model.adapter import Adapter, identify_encoder
from ..model.bases import Base
from ..model.shipped import find_shipped_adapter

FOLDER = Path(__file__).resolve().parent / "graphs"

GRAPH_VERSION = 4
"""Version of the exported graphs, raised when they change, so that older ones are not used."""

ENCODER = "encoder"


@dataclass(frozen=True)
class ReadyGraphs:
    """Graphs of a model, in a ZIP file."""

    archive: Path

    def unpack(self, folder: Path) -> None:
        """Write the graphs into a folder.

        Raises:
            DeviceError: it is damaged.
            OSError: the folder cannot be written.
        """
        try:
            with ZipFile(self.archive) as archive:
                archive.extractall(folder)
        except (BadZipFile, EOFError, zlib.error) as exc:
            raise DeviceError(f"{self.archive} is damaged. {REINSTALL}") from exc


def find_ready_graphs(base: Base, adapter: Adapter | None) -> ReadyGraphs | None:
    """Find the graphs of decoders that ship, if the encoder that they need does too; else None."""
    shipped = find_shipped_adapter(base.name)
    if adapter is None or shipped is None or find_ready_encoder(base, adapter) is None:
        return None
    return _find(FOLDER / f"{shipped.stem}.zip", list_sources(base, adapter))


def find_ready_encoder(base: Base, adapter: Adapter | None) -> ReadyGraphs | None:
    """Find the encoder that ships for a base, the adapter's narrow matrices not yet added.

    None if there is none, or if the adapter brings a whole one of its own.
    """
    if adapter is not None and adapter.card.tunes_encoder and not adapter.card.lora_rank:
        return None
    return _find(FOLDER / f"{base.name}.zip", _list_encoder_sources(base, None))


def find_int8_encoder(base: Base, adapter: Adapter | None) -> ReadyGraphs | None:
    """Find the int8 form of the encoder of a base and an adapter; None if it does not ship."""
    return _find(_name_int8(base, adapter, FOLDER), _list_encoder_sources(base, adapter))


def _find(path: Path, sources: tuple[str, ...]) -> ReadyGraphs | None:
    return ReadyGraphs(path) if _read_sources(path) == sources else None


def pack_int8_encoder(
    exported: Path, base: Base, adapter: Adapter | None, folder: Path = FOLDER
) -> Path:
    """Write the archive of an encoder in int8, and return its path.

    Args:
        exported: folder with the graph, under the name of the encoder's graph.
        adapter: the shipped adapter if it brings the encoder; None is the base's.
    """
    path = _name_int8(base, adapter, folder)
    _pack(path, exported.glob(f"{ENCODER}.*"), _list_encoder_sources(base, adapter))
    return path


def pack_graphs(exported: Path, base: Base, adapter: Adapter, folder: Path = FOLDER) -> None:
    """Write the archives from exported graphs; the same graphs give the same bytes.

    Args:
        exported: folder with the graphs of the base's own encoder and of the adapter's decoders.
        adapter: the shipped adapter.
    """
    shipped = find_shipped_adapter(base.name)
    assert shipped is not None, base.name
    encoder = set(exported.glob(f"{ENCODER}.*"))
    decoders = set(exported.iterdir()) - encoder
    _pack(folder / f"{base.name}.zip", encoder, _list_encoder_sources(base, None))
    _pack(folder / f"{shipped.stem}.zip", decoders, list_sources(base, adapter))


def list_sources(base: Base, adapter: Adapter | None) -> tuple[str, ...]:
    """List the version of the graphs and the checksums that they are made from."""
    alone = (str(GRAPH_VERSION), base.sha256)
    return alone if adapter is None else (*alone, adapter.sha256)


def _list_encoder_sources(base: Base, adapter: Adapter | None) -> tuple[str, ...]:
    return str(GRAPH_VERSION), *identify_encoder(base, adapter)


def _name_int8(base: Base, adapter: Adapter | None, folder: Path) -> Path:
    """Name the archive of the base's encoder, or of the only other one that may ship."""
    shipped = find_shipped_adapter(base.name)
    if adapter is None or adapter.encoder_sha256 is None or shipped is None:
        return folder / f"{base.name}-int8.zip"
    return folder / f"{shipped.stem}-int8.zip"


def _read_sources(path: Path) -> tuple[str, ...]:
    """Read what the graphs of an archive were made from; nothing if there is no sound archive."""
    try:
        with ZipFile(path) as archive:
            return tuple(archive.comment.decode("ascii", "replace").split("|"))
    except (OSError, BadZipFile):
        return ()


def _pack(path: Path, files: Iterable[Path], sources: tuple[str, ...]) -> None:
    with ZipFile(path, "w", ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(files):
            info = ZipInfo(file.name)  # of 1980, whenever it is made
            info.compress_type = ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, file.read_bytes())
        archive.comment = "|".join(sources).encode("ascii")
