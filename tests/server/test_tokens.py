"""Clients with a name and a token each: told apart in log and provenance, revoked at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.command_line import GLAND, rectangle
from fixtures.servers import TOKEN, Client, asked, client_of, json_of, problem_name
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.inference.segmenter import Segmenter
from wsisam_qupath.server.tokens import holds_names, is_token, parse_names

ANNA, BERT = "anna-has-a-token-of-her-own", "bert-has-a-token-of-his-own"


@pytest.fixture
def names(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.txt"
    file.write_text(f"# pathology\nanna {ANNA}\n\nbert\t{BERT}\n")
    return file


def status(client: Client, token: str) -> int:
    asker = client.app.test_client()
    answer = asker.get("/v1/info", headers={"Authorization": f"Bearer {token}"})
    answer.close()  # the log has its line then
    return answer.status_code


def test_a_file_has_one_token_or_names_with_tokens() -> None:
    assert not holds_names(ANNA)
    assert holds_names(f"anna {ANNA}")
    assert is_token(ANNA)
    assert not is_token("too-short")


@pytest.mark.parametrize(
    "line",
    [
        "anna",
        f"a {'x' * 15}",
        f"anna b {BERT}",
        f"anna {BERT}",
        f"bert {ANNA}",
        f"{'n' * 65} {BERT}",
    ],
)
def test_a_line_that_is_no_name_with_a_token_of_its_own_is_told(line: str) -> None:
    assert parse_names(f"anna {ANNA}\n{line}\n") == ({ANNA: "anna"}, [2])


def test_each_name_has_its_token_and_this_computer_the_servers(
    names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = client_of(names_file=names)

    answers = [status(client, token) for token in (ANNA, BERT, TOKEN, "nobody-has-such-a-token")]

    assert answers == [200, 200, 200, 401]
    said = [line.split(" GET ")[0].split()[2:] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        ["127.0.0.1", "anna"],
        ["127.0.0.1", "bert"],
        ["127.0.0.1", "this-computer"],
        ["127.0.0.1"],
    ]


def test_the_log_tells_no_token(names: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status(client_of(names_file=names), ANNA)

    assert ANNA not in capsys.readouterr().err


def test_a_token_is_revoked_and_added_without_a_restart(names: Path) -> None:
    client = client_of(names_file=names)
    clara = "clara-has-a-token-of-her-own"
    assert status(client, ANNA) == 200

    names.write_text(f"bert {BERT}\nclara {clara}\n")
    assert [status(client, token) for token in (ANNA, BERT, clara)] == [401, 200, 200]

    names.unlink()
    assert [status(client, token) for token in (BERT, clara, TOKEN)] == [401, 401, 200]


def test_without_names_the_log_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    status(client_of(), TOKEN)

    assert " 127.0.0.1 GET /v1/info 200 " in capsys.readouterr().err


def test_the_provenance_of_a_result_names_who_asked(
    names: Path, plain_openvino: Predictor, tissue_path: Path
) -> None:
    client = client_of(Segmenter(plain_openvino), names_file=names)
    body = asked(tissue_path, [rectangle("r", GLAND)])

    answer = client.segment(body, Authorization=f"Bearer {BERT}")
    refused = client.segment(body, Authorization=f"Bearer {BERT}x")

    assert answer.status_code == 200, answer.text
    (feature,) = json_of(answer)["features"]
    assert feature["properties"]["metadata"]["wsisam_client"] == "bert"
    assert problem_name(refused) == "unauthorized"
