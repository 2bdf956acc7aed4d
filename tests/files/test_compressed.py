"""Files that are compressed with gzip are read like plain ones, whatever their names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from wsisam_qupath.errors import PromptError
from wsisam_qupath.files import compress, estimate_size, json_documents, read_json
from wsisam_qupath.files.json_documents import JsonList

FIX = "Export it again."
NUMBERS = [{"number": number} for number in range(500)]
TEXT = json.dumps(NUMBERS).encode()


@pytest.mark.parametrize("name", ["a.json.gz", "a.json"])
def test_compressed_json_is_read_by_what_it_holds(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + TEXT))

    assert read_json(path, fix=FIX) == NUMBERS


def test_large_compressed_json_is_read_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_documents, "WHOLE_BYTES_MAX", 400)
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(TEXT))
    told: list[int] = []

    found = read_json(path, fix=FIX, on_read=told.append)

    assert isinstance(found, JsonList)
    assert list(found) == NUMBERS
    assert estimate_size(path) == len(TEXT) <= sum(told) <= 2 * len(TEXT)


@pytest.mark.parametrize("damage", ["cut off", "changed", "only a head"])
def test_damaged_compressed_json_is_one_sentence(tmp_path: Path, damage: str) -> None:
    packed = gzip.compress(TEXT)
    middle = len(packed) // 2
    content = {
        "cut off": packed[:middle],
        "changed": packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :],
        "only a head": packed[:3],
    }[damage]
    path = tmp_path / "a.geojson.gz"
    path.write_bytes(content)

    with pytest.raises(PromptError, match=r"a\.geojson\.gz is .*\. Export it again\."):
        read_json(path, fix=FIX)


def test_what_unpacks_to_more_than_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_documents, "BYTES_MAX", 1 << 20)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * (64 << 20)))

    with pytest.raises(PromptError, match="is larger than 1 MiB"):
        read_json(path, fix=FIX)


def test_what_is_compressed_unpacks_again_and_the_same_content_gives_the_same_bytes() -> None:
    pieces = [TEXT[:100], TEXT[100:5000], b"", TEXT[5000:]]

    packed = b"".join(compress(pieces))

    assert gzip.decompress(packed) == TEXT
    assert packed == b"".join(compress(pieces))
    assert len(packed) < len(TEXT) / 4


def test_the_size_of_a_plain_file_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(TEXT)

    assert estimate_size(path) == len(TEXT)
