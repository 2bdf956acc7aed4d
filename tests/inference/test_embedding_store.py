"""Encoded patches on the disk: rounded, bounded, checked, and shared by processes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wsisam_qupath.inference.backends import Encoded
from wsisam_qupath.inference.embedding_store import EmbeddingStore

MB = 10**6


def make_encoded(seed: int, places: int = 64 * 64) -> Encoded:
    """A patch of random numbers; 64 x 64 places take 2.6 MB on the disk."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(1, places, 256)).astype(np.float32)
    early = rng.normal(size=(1, 64, places // 64, 64)).astype(np.float32)
    return Encoded(tokens, early)


def are_same(one: Encoded | None, other: Encoded) -> bool:
    return one is not None and all(
        np.array_equal(a, b) and a.dtype == b.dtype == np.float32
        for a, b in zip(one, other, strict=True)
    )


def list_keys(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.patch")}


def measure(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_what_is_found_is_what_keeping_it_returned(tmp_path: Path) -> None:
    encoded = make_encoded(0)

    kept = EmbeddingStore(tmp_path / "new", 10 * MB).keep("a", encoded)

    found = EmbeddingStore(tmp_path / "new", 10 * MB).find("a")
    assert are_same(found, kept)
    assert np.allclose(kept.tokens, encoded.tokens, rtol=2**-11, atol=1e-7)
    assert np.array_equal(kept.tokens, encoded.tokens.astype(np.float16))


def test_numbers_beyond_half_precision_stay_finite(tmp_path: Path) -> None:
    large = Encoded(np.full((1, 1, 1), 1e6, np.float32), np.full((1, 1), -1e6, np.float32))

    kept = EmbeddingStore(tmp_path, MB).keep("a", large)

    assert (kept.tokens.item(), kept.early.item()) == (65504.0, -65504.0)


def test_another_key_finds_nothing(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, 10 * MB)
    store.keep("a", make_encoded(0))

    assert (store.holds("a"), store.holds("b")) == (True, False)
    assert store.find("b") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda _: b"",
        lambda content: bytes(len(content)),
        lambda _: bytes(4),
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content[:4] + bytes([content[4] ^ 1]) + content[5:],
        lambda content: content + b"more",
        lambda content: np.random.default_rng(0).bytes(len(content)),
    ],
    ids=["half", "empty", "zeros", "four zeros", "a bit", "a bit of the head", "more", "noise"],
)
def test_a_damaged_file_is_as_if_it_were_not_there_and_goes(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    store = EmbeddingStore(tmp_path, 10 * MB)
    kept = store.keep("a", make_encoded(0))
    path = tmp_path / "a.patch"
    path.write_bytes(damage(path.read_bytes()))

    assert store.find("a") is None

    assert not path.exists()
    store.keep("a", make_encoded(0))
    assert are_same(store.find("a"), kept)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, 9 * MB)  # room for three
    for number, key in enumerate("abc"):
        store.keep(key, make_encoded(number))
        os.utime(tmp_path / f"{key}.patch", (1000 + number, 1000 + number))
    store.find("a")

    store.keep("d", make_encoded(3))

    assert list_keys(tmp_path) == {"a", "c", "d"}


def test_the_limit_is_kept_however_much_comes(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, 3 * MB)
    for number in range(60):
        store.keep(str(number), make_encoded(number, places=128))
        assert measure(tmp_path) <= 3 * MB

    assert 20 < len(list_keys(tmp_path)) < 60


def test_a_patch_larger_than_the_limit_is_rounded_and_not_kept(tmp_path: Path) -> None:
    kept = EmbeddingStore(tmp_path / "none", MB).keep("a", make_encoded(0))

    assert np.array_equal(kept.tokens, make_encoded(0).tokens.astype(np.float16))
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written_keeps_nothing_and_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = EmbeddingStore(tmp_path / "file", 10 * MB)

    kept = store.keep("a", make_encoded(0))

    assert np.array_equal(kept.tokens, make_encoded(0).tokens.astype(np.float16))
    assert store.find("a") is None


def test_what_a_killed_process_left_unfinished_goes(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, 10 * MB)
    store.keep("a", make_encoded(0, places=64))
    for name, hours in ((".old.tmp", 2), (".new.tmp", 0)):
        (tmp_path / name).write_bytes(b"half of it")
        then = time.time() - 3600 * hours
        os.utime(tmp_path / name, (then, then))

    EmbeddingStore(tmp_path, 10 * MB).keep("b", make_encoded(1, places=64))

    assert {path.name for path in tmp_path.iterdir()} == {"a.patch", "b.patch", ".new.tmp"}


def fill(folder: Path, first: int) -> None:
    store = EmbeddingStore(folder, 2 * MB)
    for number in range(first, first + 60):
        store.keep(str(number), make_encoded(number, places=128))
        other = (number * 7) % 120
        found = store.find(str(other))
        assert found is None or np.array_equal(
            found.tokens, make_encoded(other, places=128).tokens.astype(np.float16)
        )


@pytest.mark.slow
def test_two_processes_that_fill_a_folder_at_once_keep_its_limit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fill, args=(tmp_path, first)) for first in (0, 60)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0]
    assert measure(tmp_path) <= 2 * MB
    store = EmbeddingStore(tmp_path, 2 * MB)
    assert all(store.find(key) is not None for key in list_keys(tmp_path))
