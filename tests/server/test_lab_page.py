"""What the page for a lab's server says is so: its unit, its certificate, its tokens."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from shutil import which

import pytest

from fixtures.command_line import GLAND, environment, rectangle
from fixtures.servers import PATIENCE_SECONDS, asked, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the page is of Linux"),
]

PAGE = (Path(__file__).parents[2] / "docs" / "install-lab.md").read_text("utf-8")
NAME = "gpu.example.org"


def block(kind: str, holds: str) -> str:
    """The one block of code of the page that holds some words, each command in one line."""
    found = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (text,) = (re.sub(r"\\\n\s*", "", one) for one in found if holds in one)
    return text


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What the page has below ``/srv/wsisam`` and ``/data``, made by its own commands."""
    for name in ("srv/wsisam", "data/slides"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "srv/wsisam/token").write_text(block("", "# pathology"), encoding="utf-8")
    return tmp_path


def here(command: str, place: Path) -> list[str]:
    """A command of the page, with its folders below another one."""
    moved = re.sub(r"(?<=[ =])/(srv|data)/", f"{place}/\\1/", command)
    return shlex.split(moved.removeprefix("sudo -H -u wsisam "))


def make_certificate(place: Path) -> None:
    command = here(block("", "openssl req").strip(), place)
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.skipif(which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "wsisam-qupath.service"
    program = block("ini", "ExecStart").split("ExecStart=")[1].split()[0]
    quoted = f'"{sys.executable}"'  # it may have a space
    unit.write_text(block("ini", "ExecStart").replace(program, quoted), encoding="utf-8")

    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )

    about_it = [line for line in done.stderr.splitlines() if unit.name in line]
    assert about_it == []


@contextmanager
def unit_started(place: Path) -> Iterator[tuple[int, Path]]:
    """The command of the unit at any free port; the port and the log."""
    line = re.search(r"^ExecStart=(.*)$", block("ini", "ExecStart"), re.MULTILINE)
    assert line is not None
    _, *options = here(line[1], place)
    log = place / "log.txt"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "wsisam_qupath", *options, "--port", "0"],
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            env=environment(HOME=str(place)),
        )
    try:
        port = re.search(r"https://[^:\s]+:(\d+)", wait_for(log, "Ready:"))
        assert port is not None
        yield int(port[1]), log
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def ask(place: Path, port: int, path: str, token: str = "", body: object = None) -> HTTPResponse:
    """Ask as QuPath does: by the server's name, trusting the page's certificate alone."""
    trusting = ssl.create_default_context(cafile=str(place / "srv/wsisam/cert.pem"))
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {NAME}:{port}\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    with trusting.wrap_socket(plain, server_hostname=NAME) as connection:
        connection.sendall(head.encode() + content)
        answer = HTTPResponse(connection)
        answer.begin()
        return answer


@pytest.mark.skipif(which("openssl") is None, reason="the page makes its certificate with openssl")
def test_the_unit_serves_named_clients_over_tls_and_revokes_without_a_restart(
    place: Path, tissue_path: Path
) -> None:
    make_certificate(place)
    slide = place / "data/slides/tissue.tif"
    slide.write_bytes(tissue_path.read_bytes())
    tokens = place / "srv/wsisam/token"
    (_, anna), (_, bert) = re.findall(r"^(\w+) (\w{16,})$", tokens.read_text(), re.MULTILINE)

    with unit_started(place) as (port, log):
        open_to_all = [ask(place, port, path).status for path in ("/", "/healthz")]
        need_a_token = [ask(place, port, path).status for path in ("/metrics", "/openapi.json")]
        with_one = [ask(place, port, path, anna).status for path in ("/metrics", "/openapi.json")]
        # By the drive of the pathologists, as the unit maps it.
        click = asked("file:///P:/slides/tissue.tif", [rectangle("box", GLAND)])
        outlined = ask(place, port, "/v1/segment", anna, click).status
        tokens.write_text(f"bert {bert}\ncarla a-token-that-carla-has\n", encoding="utf-8")
        revoked = ask(place, port, "/v1/info", anna).status
        added = ask(place, port, "/v1/info", "a-token-that-carla-has").status
        kept = ask(place, port, "/v1/info", bert).status

    assert (open_to_all, need_a_token, with_one) == ([200] * 2, [401] * 2, [200] * 2)
    assert (outlined, revoked, added, kept) == (200, 401, 200, 200)
    told = log.read_text(encoding="utf-8")
    assert " anna " in told
    assert anna not in told
