"""``wsisam-qupath view``: what it says when it cannot show anything, and how it starts and ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from fixtures.command_line import environment, run_here
from fixtures.servers import PATIENCE_SECONDS, wait_for


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, for the connection file."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def test_a_slide_that_is_not_there_is_one_sentence(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    answer = run_here(capfd, "view", tmp_path / "none.svs", "--no-browser")

    assert (answer.code, len(answer.words)) == (2, 1)
    assert "There is no slide" in answer.err


def test_a_folder_without_slides_is_one_sentence(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    answer = run_here(capfd, "view", tmp_path, "--no-browser")

    assert (answer.code, len(answer.words)) == (2, 1)
    assert "There are no slides in" in answer.err


def test_a_slide_that_cannot_be_shown_is_told_before_the_server_starts(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    photo, damaged = tmp_path / "photo.png", tmp_path / "damaged.png"
    Image.new("RGB", (20, 20)).save(photo)
    damaged.write_bytes(photo.read_bytes()[:40])

    without_size = run_here(capfd, "view", photo, "--no-browser")
    broken = run_here(capfd, "view", damaged, "--no-browser", "--mpp", "0.5")
    no_size = run_here(capfd, "view", photo, "--no-browser", "--mpp", "1000")

    assert [one.code for one in (without_size, broken, no_size)] == [2, 2, 2]
    assert "states no pixel size" in without_size.err
    assert "is damaged" in broken.err
    assert "--mpp" in no_size.err


@pytest.mark.slow
def test_it_prints_an_address_that_works_and_ends_with_ctrl_c(
    tissue_path: Path, home: Path
) -> None:
    log = home / "log.txt"
    command = [sys.executable, "-m", "wsisam_qupath", "view", str(tissue_path), "--no-browser"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=environment())
    try:
        found = re.search(r"^Open (\S+)$", wait_for(log, "Ctrl-C"), re.MULTILINE)
        assert found is not None
        address = urlsplit(found[1])
        token = address.fragment.removeprefix("token=")
        connection = HTTPConnection(address.netloc, timeout=PATIENCE_SECONDS)
        connection.request("GET", "/view/slides", headers={"Authorization": f"Bearer {token}"})
        slides = json.loads(connection.getresponse().read())
        connection.request("GET", address.path)
        page = connection.getresponse()

        assert (address.hostname, slides) == ("127.0.0.1", {"slides": [tissue_path.name]})
        assert (page.status, b"<title>WSI-SAM</title>" in page.read()) == (200, True)

        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 0, log.read_text("utf-8")
        assert list((home / ".wsisam-qupath" / "servers").iterdir()) == []
    finally:
        process.kill()
        process.wait()
