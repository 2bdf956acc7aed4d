"""Several servers on one machine: each has a file of its own, and takes away no other's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from fixtures.command_line import environment
from fixtures.servers import wait_for
from wsisam_qupath.server.connection_file import connection_file, remove_stale

URL = "http://127.0.0.1:8473"
TOKEN = "0123456789abcdef-for-tests"


@contextmanager
def serving(home: Path, name: str, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A server, and the file by which clients find it."""
    log = home / f"{name}.txt"
    command = [sys.executable, "-m", "wsisam_qupath", "serve", "--port", "0", "--adapter", "none"]
    own = environment(HOME=str(home), USERPROFILE=str(home))
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, *options], stdin=subprocess.PIPE, stderr=stderr, env=own
        )
    try:
        wait_for(log, "Token:")
        yield process, home / ".wsisam-qupath" / "servers" / f"{process.pid}.json"
    finally:
        process.kill()
        process.communicate()


def about(**changes: object) -> dict[str, Any]:
    started = psutil.Process().create_time()
    host = socket.gethostname()
    return {"url": URL, "pid": os.getpid(), "started": started, "host": host, **changes}


@pytest.mark.slow
def test_a_server_that_stops_takes_its_own_file_away_and_no_other(tmp_path: Path) -> None:
    with serving(tmp_path, "first") as (_, of_first), serving(tmp_path, "second") as (second, own):
        assert json.loads(of_first.read_bytes())["url"] != json.loads(own.read_bytes())["url"]

        second.send_signal(signal.SIGTERM)
        second.wait(60)

        assert of_first.exists()
        assert not own.exists()


@pytest.mark.slow
def test_a_signal_beside_the_end_of_the_input_does_not_cut_the_stop_short(tmp_path: Path) -> None:
    with serving(tmp_path, "first", "--stop-with-input") as (process, own):
        assert process.stdin is not None
        process.stdin.close()
        process.send_signal(signal.SIGTERM)  # as Java's Process.destroy() does

        assert process.wait(60) == 0
        assert not own.exists()


@pytest.mark.slow
def test_the_file_of_a_server_that_was_killed_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    with serving(tmp_path, "first") as (first, of_first):
        first.kill()
        first.wait()
        assert of_first.exists()

        with serving(tmp_path, "second") as (_, own):
            assert own.exists()
            assert not of_first.exists()


@pytest.mark.parametrize(
    ("changes", "goes"),
    [
        ({}, False),
        ({"pid": 2**22 + 1}, True),
        ({"pid": 2**80}, True),
        ({"started": 1.0}, True),
        ({"host": "another", "pid": 2**22 + 1}, False),
        ({"pid": "x"}, False),
        ({"pid": 2**22 + 1, "format": 2}, True),
        ({"pid": 2**22 + 1, "format": 3}, False),
        ({"pid": 2**22 + 1, "format": "x"}, False),
    ],
)
def test_only_files_of_servers_of_this_machine_that_are_gone_go(
    tmp_path: Path, changes: dict[str, object], goes: bool
) -> None:
    path = tmp_path / "1.json"
    path.write_text(json.dumps(about(**changes)))

    remove_stale(tmp_path)

    assert path.exists() is not goes


def test_a_connection_file_states_format_and_protocol(tmp_path: Path) -> None:
    path = tmp_path / "1.json"

    with connection_file(path, URL, TOKEN):
        stated = json.loads(path.read_bytes())

    assert (stated["format"], stated["protocol"]) == (2, 2)


def test_what_is_no_connection_file_stays(tmp_path: Path) -> None:
    for number, content in enumerate([b"", b"[1]", b"\xff", b"[" * 100_000]):
        (tmp_path / f"{number}.json").write_bytes(content)
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe.json")
    before = sorted(tmp_path.iterdir())

    remove_stale(tmp_path)

    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_another_server_has_written_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "named-by-the-user.json"

    with suppress(OSError), connection_file(path, URL, TOKEN):
        path.write_text("another server's")

    assert path.read_text() == "another server's"
