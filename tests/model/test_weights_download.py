"""Weights that are downloaded: whole, continued, checked, and what is told when they cannot be."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.file_servers import BREAK_BYTES, CONTENT, OTHER_CONTENT, SHA256, FileServer, base_at
from wsisam_qupath.errors import WeightsError
from wsisam_qupath.model.bases import Base
from wsisam_qupath.model.weights import Weights, download_weights, locate_weights


def names(folder: Path) -> set[str]:
    """What lies in a folder, less the lock, which only some platforms leave behind."""
    return {path.name for path in folder.iterdir()} - {"weights.bin.lock"}


def test_weights_are_downloaded_whole_with_progress(
    server: FileServer, base: Base, tmp_path: Path
) -> None:
    seen: list[tuple[int, int | None]] = []

    weights = download_weights(
        base, tmp_path / "new", progress=lambda done, total: seen.append((done, total))
    )

    assert weights == Weights(tmp_path / "new" / "weights.bin", SHA256)
    assert weights.path.read_bytes() == CONTENT
    assert names(tmp_path / "new") == {"weights.bin"}
    assert (seen[0], seen[-1]) == ((0, 1_000_000), (1_000_000, 1_000_000))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert server.ranges == [None]


def test_present_weights_are_not_requested_again(
    server: FileServer, base: Base, tmp_path: Path
) -> None:
    download_weights(base, tmp_path)
    download_weights(base, tmp_path)
    assert len(server.requests) == 1


def test_damaged_weights_are_replaced(base: Base, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(CONTENT[:500])
    assert download_weights(base, tmp_path).path.read_bytes() == CONTENT


def test_located_weights_are_downloaded_on_request_only(
    server: FileServer, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSISAM_QUPATH_CACHE", str(tmp_path))

    with pytest.raises(WeightsError, match="wsisam-qupath weights test-base"):
        locate_weights(base)
    assert server.requests == []

    assert locate_weights(base, download=True).path == tmp_path / "weights" / "weights.bin"
    assert locate_weights(base).sha256 == SHA256


def test_a_broken_connection_is_continued_where_it_broke(
    server: FileServer, base: Base, tmp_path: Path
) -> None:
    server.drops = 2

    assert download_weights(base, tmp_path).path.read_bytes() == CONTENT

    assert server.ranges == [None, "bytes=327680-", "bytes=655360-"]
    assert [headers.get("If-Range") for headers in server.requests] == [
        None,
        '"version 1"',
        '"version 1"',
    ]


def test_an_interrupted_download_is_continued_by_the_next_call(
    server: FileServer, base: Base, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done > 400_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_weights(base, tmp_path, progress=interrupt)
    kept = (tmp_path / "weights.bin.part").stat().st_size
    assert names(tmp_path) == {"weights.bin.part", "weights.bin.part.version"}

    assert download_weights(base, tmp_path).path.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={kept}-"]
    assert names(tmp_path) == {"weights.bin"}


def test_a_file_that_changed_on_the_server_is_fetched_from_its_start(
    server: FileServer, base: Base, tmp_path: Path
) -> None:
    (tmp_path / "weights.bin.part").write_bytes(OTHER_CONTENT[:BREAK_BYTES])
    (tmp_path / "weights.bin.part.version").write_text('"version 0"', encoding="ascii")

    assert download_weights(base, tmp_path).path.read_bytes() == CONTENT

    assert server.requests[0]["If-Range"] == '"version 0"'
    assert server.ranges == ["bytes=327680-"]


def test_a_server_without_ranges_sends_the_file_from_its_start(
    server: FileServer, base: Base, tmp_path: Path
) -> None:
    server.takes_ranges = False
    server.drops = 1

    assert download_weights(base, tmp_path).path.read_bytes() == CONTENT

    assert server.ranges == [None, "bytes=327680-"]


def test_a_server_that_states_no_length_is_understood(
    server: FileServer, base: Base, tmp_path: Path
) -> None:
    server.states_length = False
    totals: set[int | None] = set()

    weights = download_weights(base, tmp_path, progress=lambda _, total: totals.add(total))

    assert weights.path.read_bytes() == CONTENT
    assert totals == {None}


def test_a_whole_part_is_taken_without_fetching_it_again(
    server: FileServer, base: Base, tmp_path: Path
) -> None:
    (tmp_path / "weights.bin.part").write_bytes(CONTENT)

    assert download_weights(base, tmp_path).path.read_bytes() == CONTENT

    assert server.ranges == ["bytes=1000000-"]


def test_a_part_longer_than_the_file_is_thrown_away(
    server: FileServer, base: Base, tmp_path: Path
) -> None:
    (tmp_path / "weights.bin.part").write_bytes(CONTENT + b"more")

    assert download_weights(base, tmp_path).path.read_bytes() == CONTENT

    assert server.ranges == ["bytes=1000004-", None]


def test_a_connection_that_always_breaks_is_given_up_and_its_bytes_are_kept(
    server: FileServer, base: Base, tmp_path: Path
) -> None:
    server.drops = 1000
    server.takes_ranges = False

    with pytest.raises(WeightsError, match=r"No connection to 127\.0\.0\.1"):
        download_weights(base, tmp_path)

    assert (tmp_path / "weights.bin.part").read_bytes() == CONTENT[:BREAK_BYTES]


def test_a_wrong_checksum_leaves_nothing_behind_and_states_both(
    server: FileServer, base: Base, tmp_path: Path
) -> None:
    server.content = OTHER_CONTENT

    with pytest.raises(WeightsError) as caught:
        download_weights(base, tmp_path)

    assert SHA256 in str(caught.value)
    assert hashlib.sha256(OTHER_CONTENT).hexdigest() in str(caught.value)
    assert names(tmp_path) == set()


def test_a_redirect_is_followed(server: FileServer, base: Base, tmp_path: Path) -> None:
    server.redirects = True
    assert download_weights(base, tmp_path).path.read_bytes() == CONTENT


def test_a_mirror_is_asked_in_place_of_the_address_of_the_base(
    server: FileServer, tmp_path: Path
) -> None:
    base = base_at("http://127.0.0.1:9/never-asked")
    assert download_weights(base, tmp_path, url=server.url).path.read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, 4)])
def test_an_error_of_the_server_is_told_with_a_way_round(
    server: FileServer, base: Base, tmp_path: Path, status: int, requests: int
) -> None:
    server.status = status

    with pytest.raises(WeightsError) as caught:
        download_weights(base, tmp_path)

    assert f"answered: {status}" in str(caught.value)
    assert f"save it as {tmp_path / 'weights.bin'}" in str(caught.value)
    assert len(server.requests) == requests


def test_no_network_is_told_with_a_way_round(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    base = base_at(f"http://127.0.0.1:{port}/weights.bin")

    with pytest.raises(WeightsError, match=r"No connection to .*HTTPS_PROXY") as caught:
        download_weights(base, tmp_path)

    assert f"save it as {tmp_path / 'weights.bin'}" in str(caught.value)


def test_a_server_that_does_not_speak_tls_is_told(server: FileServer, tmp_path: Path) -> None:
    base = base_at(server.url.replace("http:", "https:"))
    with pytest.raises(WeightsError, match="REQUESTS_CA_BUNDLE"):
        download_weights(base, tmp_path)


def test_a_folder_that_cannot_be_made_is_told(base: Base, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"cannot be written: .*WSISAM_QUPATH_CACHE"):
        download_weights(base, tmp_path / "file" / "weights")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told(base: Base, tmp_path: Path) -> None:
    (tmp_path / "weights.bin.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=r"is full\. Make room there"):
        download_weights(base, tmp_path)


def test_two_downloads_at_once_share_one_request(
    server: FileServer, base: Base, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from wsisam_qupath.model.download import download\n"
        "download(sys.argv[1], Path(sys.argv[2]), sys.argv[3])\n"
    )
    path = tmp_path / "weights.bin"
    command = [sys.executable, "-c", code, server.url, str(path), SHA256]

    server.pause_s = 1.0  # long enough for all three to have started
    processes = [subprocess.Popen(command) for _ in range(3)]

    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None]
