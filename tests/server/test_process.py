"""A server in a process of its own: how it starts, what clients that leave cost, how it ends."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from shutil import which
from urllib.parse import urlsplit

import psutil
import pytest

from fixtures.command_line import GLAND, Feature, environment, rectangle
from fixtures.formula import formula_rgb, write_aperio
from fixtures.servers import SIDE_PX, Running, asked, mode_of, records_of, running, wait_for
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.slide.pyramid import write_pyramid

pytestmark = pytest.mark.slow

BOX = rectangle("box", GLAND)
MANY = 30


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, tissue: ImageArray) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    write_pyramid(folder / "tissue.tif", tissue, mpp=0.5)
    return folder


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, slides: Path, plain_openvino: Predictor
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("home")
    options = ("--adapter", "none", "--slides", slides, "--max-requests", 3)
    with running(folder, *options) as server:
        yield server


@pytest.fixture
def many(slides: Path) -> dict[str, object]:
    """Work for some seconds: each prompt at a scale or place of its own."""
    return asked(slides / "tissue.tif", map(distinct, range(MANY)))


def distinct(number: int) -> Feature:
    step = 16 + 20 * (number // 8)
    x, y = 61 * (number % 8), 61 * (number // 8)
    return rectangle(str(number), (x, y, x + step, y + step))


def send(server: Running, body: object, accept: str = "application/geo+json") -> socket.socket:
    """A request, of whose answer nothing was read."""
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/segment HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {server.token}\r\n"
        f"Content-Type: application/json\r\nAccept: {accept}\r\nContent-Length: {len(content)}\r\n"
    )
    connection = socket.create_connection(server.address, timeout=60)
    connection.sendall(head.encode() + b"\r\n" + content)
    return connection


def in_hand(server: Running) -> float:
    text = server.ask("GET", "/metrics").read().decode()
    (line,) = (one for one in text.splitlines() if one.startswith("wsisam_requests_in_hand "))
    return float(line.split()[1])


def wait_until_in_hand(server: Running, count: int) -> None:
    deadline = time.monotonic() + 120
    while in_hand(server) != count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def prompts_answered(server: Running) -> float:
    text = server.ask("GET", "/metrics").read().decode()
    (line,) = (one for one in text.splitlines() if one.startswith("wsisam_prompts_total "))
    return float(line.split()[1])


def test_a_click_is_answered(server: Running, slides: Path) -> None:
    answer = server.ask("POST", "/v1/segment", asked(slides / "tissue.tif", [BOX]))

    (feature,) = json.load(answer)["features"]
    assert feature["geometry"]["type"] in ("Polygon", "MultiPolygon")
    server.wait_for(f"{answer.headers['X-Request-Id']} 127.0.0.1 POST /v1/segment 200 ")


def test_clients_on_this_machine_find_url_and_token(server: Running) -> None:
    known = json.loads(server.file.read_bytes())

    assert known["url"].startswith("http://127.0.0.1:")
    assert known["pid"] == server.process.pid
    assert len(known["token"]) >= 40
    if os.name == "posix":
        assert mode_of(server.file) == 0o600


def test_the_token_is_told_once(server: Running) -> None:
    server.ask("GET", "/v1/info").read()

    assert server.log.read_text(encoding="utf-8").count(server.token) == 1


def test_records_arrive_while_the_rest_is_computed(
    server: Running, many: dict[str, object]
) -> None:
    answer = server.ask("POST", "/v1/segment", many, Accept="application/geo+json-seq")

    first = answer.readline()

    assert in_hand(server) == 1
    (record,) = records_of(first)
    assert record["type"] == "Feature"
    answer.close()
    wait_until_in_hand(server, 0)


def test_work_stops_when_the_client_of_a_stream_goes_away(
    server: Running, many: dict[str, object]
) -> None:
    before = prompts_answered(server)
    connection = send(server, many, "application/geo+json-seq")
    assert connection.recv(1)

    connection.close()

    wait_until_in_hand(server, 0)
    assert prompts_answered(server) - before < MANY


def test_one_that_goes_away_is_let_go_while_another_goes_on(
    server: Running, many: dict[str, object], slides: Path
) -> None:
    make_busy_problem = send(server, many)
    wait_until_in_hand(server, 1)
    leaver = send(server, many)
    wait_until_in_hand(server, 2)

    leaver.close()

    wait_until_in_hand(server, 1)
    server.wait_for(" 499 ")
    make_busy_problem.close()
    wait_until_in_hand(server, 0)


def test_a_full_server_refuses_within_50_ms(
    server: Running, many: dict[str, object], slides: Path
) -> None:
    streams = [send(server, many, "application/geo+json-seq") for _ in range(3)]
    wait_until_in_hand(server, 3)
    took = []
    for _ in range(5):
        began = time.perf_counter()
        answer = server.ask("POST", "/v1/segment", asked(slides / "tissue.tif", [BOX]))
        took.append(time.perf_counter() - began)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        answer.read()

    for stream in streams:
        stream.close()
    wait_until_in_hand(server, 0)
    # The best of some: this machine may have much else to do.
    assert min(took) < 0.05


def test_a_click_is_not_kept_waiting_by_a_large_request(
    server: Running, many: dict[str, object], slides: Path
) -> None:
    large = server.ask("POST", "/v1/segment", many, Accept="application/geo+json-seq")
    large.readline()

    click = server.ask("POST", "/v1/segment", asked(slides / "tissue.tif", [BOX]))

    assert len(json.load(click)["features"]) == 1
    assert in_hand(server) == 1
    large.close()
    wait_until_in_hand(server, 0)


def test_a_body_without_a_length_is_taken(server: Running, slides: Path) -> None:
    body = json.dumps(asked(slides / "tissue.tif", [BOX])).encode()
    connection = server.connect()
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}

    with closing(connection):
        connection.request(
            "POST", "/v1/segment", iter([body[:50], body[50:]]), headers, encode_chunked=True
        )

        assert connection.getresponse().status == 200


def test_a_body_that_says_it_is_huge_is_not_waited_for(server: Running) -> None:
    connection = server.connect()
    connection.putrequest("POST", "/v1/segment")
    for name, value in (
        ("Authorization", f"Bearer {server.token}"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(1 << 40)),
    ):
        connection.putheader(name, value)
    connection.endheaders()

    assert connection.getresponse().status == 413


def test_sigterm_ends_it_in_order(tmp_path: Path, slides: Path) -> None:
    with running(tmp_path, "--adapter", "none", "--slides", slides) as server:
        answers: list[int] = []
        body = asked(slides / "tissue.tif", [BOX])

        def click() -> None:
            answers.append(server.ask("POST", "/v1/segment", body).status)

        clicking = threading.Thread(target=click)
        clicking.start()
        while in_hand(server) == 0 and not answers:
            time.sleep(0.001)
        code = server.stop()
        clicking.join()

        assert code == 0
        assert answers in ([200], [503])
        assert not server.file.exists()
        assert "Traceback" not in server.log.read_text(encoding="utf-8")


@pytest.mark.skipif(os.name == "nt", reason="stops a process by a signal")
def test_sigterm_ends_it_though_a_slide_hangs(tmp_path: Path, slides: Path) -> None:
    scan = slides / "scan.svs"
    write_aperio(scan, formula_rgb(range(SIDE_PX), range(SIDE_PX)), "0.5")
    with running(tmp_path, "--adapter", "none", "--slides", slides) as server:
        waiting = send(server, asked(scan, [BOX]))
        opening = stop_child_of(server.process.pid)
        code = server.stop()

        # What the request waits for would have taken two minutes to be given up.
        still_hangs = opening.status() == psutil.STATUS_STOPPED
        opening.kill()
        waiting.close()
        assert still_hangs
        assert code == 1
        server.wait_for("did not come to an end in time. The server ends all the same.")


def stop_child_of(pid: int) -> psutil.Process:
    """Stop the process in which a server opens a slide, as a network drive that hangs would."""
    deadline = time.monotonic() + 60
    while not (children := psutil.Process(pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    children[0].suspend()
    return children[0]


def test_it_answers_while_the_model_loads_and_can_be_ended_then(
    tmp_path: Path, slides: Path
) -> None:
    with running(tmp_path, "--adapter", "none", "--slides", slides, ready=False) as server:
        state = json.load(server.ask("GET", "/healthz"))["state"]
        answer = server.ask("POST", "/v1/segment", asked(slides / "tissue.tif", [BOX]))

        assert server.stop() == 0
        assert state in ("loading", "ready")
        assert (answer.status, answer.headers["Retry-After"]) in ((503, "2"), (200, None))


@pytest.mark.skipif(which("openssl") is None, reason="makes its certificate with openssl")
def test_it_speaks_tls_itself(tmp_path: Path, slides: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-out", str(cert), "-keyout", str(key)),
        ],
        check=True,
        capture_output=True,
    )
    tls = ("--tls-cert", cert, "--tls-key", key, "--adapter", "none", "--slides", slides)
    named = ("--name", "lab.example.org")

    with running(tmp_path, *tls, *named, ready=False) as server:
        silent = socket.create_connection(server.address)  # keeps nobody else from connecting
        trusting = ssl.create_default_context(cafile=str(cert))
        answer = said_by(HTTPSConnection(*server.address, context=trusting, timeout=60))
        with pytest.raises(ssl.SSLError):
            said_by(HTTPSConnection(*server.address, timeout=60))
        plain = said_by(HTTPConnection(*server.address, timeout=60))
        silent.close()
        leave_over_tls(server, trusting, asked(slides / "tissue.tif", map(distinct, range(MANY))))

        port = urlsplit(server.url).port
        assert server.url == f"https://127.0.0.1:{port}"
        server.wait_for(f"listens at {server.url} and https://lab.example.org:{port}\n")
        assert b'"state"' in answer
        assert b"begin its address with https" in plain
        assert server.stop() == 0


def leave_over_tls(server: Running, trusting: ssl.SSLContext, body: object) -> None:
    """Ask for work, and say goodbye as TLS has it, without closing the connection."""
    while b'"ready"' not in said_by(HTTPSConnection(*server.address, context=trusting)):
        time.sleep(0.1)
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    plain = socket.create_connection(server.address)
    with trusting.wrap_socket(plain, server_hostname="localhost") as connection:
        connection.sendall(head.encode() + content)
        connection.settimeout(0.5)
        with suppress(OSError):  # nobody says goodbye to us
            connection.unwrap()
        server.wait_for(" 499 ")


def said_by(connection: HTTPConnection) -> bytes:
    with closing(connection):
        connection.request("GET", "/healthz", headers={"Connection": "close"})
        return connection.getresponse().read()


def failure(folder: Path, *options: object) -> str:
    """What a server says that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "wsisam_qupath", "serve", *map(str, options)],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=environment(HOME=str(folder), USERPROFILE=str(folder)),
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr.decode()


def test_a_port_that_is_taken_is_one_sentence(server: Running, tmp_path: Path) -> None:
    said = failure(tmp_path, "--port", server.address[1])

    assert "(Address already in use). Choose another port" in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("option", ["--tls-cert", "--tls-key"])
def test_a_pipe_or_a_device_is_no_certificate_and_not_waited_for(
    tmp_path: Path, option: str, kind: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    wrong = tmp_path / "pipe" if kind == "pipe" else Path("/dev/zero")
    files = {"--tls-cert": tmp_path / "cert.pem", "--tls-key": tmp_path / "key.pem", option: wrong}
    for file in set(files.values()) - {wrong}:
        file.write_text("not looked at, or not first")

    said = failure(tmp_path, "--port", 0, *(part for pair in files.items() for part in pair))

    assert "cannot be used for TLS (it is not an ordinary file). Give a certificate" in said
    assert len(said.splitlines()) == 1


def test_a_token_of_ones_own_is_taken_and_must_be_long(tmp_path: Path, slides: Path) -> None:
    own = tmp_path / "token.txt"
    own.write_text("short")
    assert "holds no token" in failure(tmp_path, "--port", 0, "--token-file", own)
    own.write_text("# two\nanna anna-has-a-token-of-her-own\nbert short\n")
    assert "line 3: write a name without spaces" in failure(
        tmp_path, "--port", 0, "--token-file", own
    )
    own.write_text('{"format": 3, "url": "http://here"}')
    assert "is the address of a server in format 3" in failure(
        tmp_path, "--port", 0, "--token-file", own
    )
    own.write_text("a-token-that-is-long-enough\n")
    log = tmp_path / "log.txt"
    command = ["serve", "--port", "0", "--token-file", own, "--host", "0.0.0.0"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "wsisam_qupath", *map(str, command)],
            stderr=stderr,
            env=environment(HOME=str(tmp_path), USERPROFILE=str(tmp_path)),
        )
    try:
        said = wait_for(log, "Token:")
        own_file = tmp_path / ".wsisam-qupath" / "servers" / f"{process.pid}.json"
        known = json.loads(own_file.read_bytes())
    finally:
        process.kill()
        process.wait()

    assert known["token"] == "a-token-that-is-long-enough"
    assert "a-token-that-is-long-enough" not in said  # it would stay in the log
    assert own.read_text() == "a-token-that-is-long-enough\n"
    assert (
        "WARNING: 0.0.0.0 can be reached from other computers, and the connection is not encrypted"
        in said
    )
    if os.name == "posix":
        assert mode_of(tmp_path / ".wsisam-qupath") == 0o700
