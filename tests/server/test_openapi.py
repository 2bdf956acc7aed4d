"""The description is right, and whatever is asked by it is answered as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fixtures.servers import BEARER, Client, client_of
from wsisam_qupath.errors import OptionError
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.inference.segmenter import Segmenter
from wsisam_qupath.server.budget import MemoryBudget
from wsisam_qupath.server.config import Limits
from wsisam_qupath.server.decoding import decode_segment
from wsisam_qupath.server.openapi import openapi
from wsisam_qupath.server.problems import ProblemError
from wsisam_qupath.server.schemas import GEOJSON, STREAMED_PROMPTS_MIN

pytestmark = pytest.mark.slow

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]

LOOKS = ["/v1/info", "/metrics", "/openapi.json", "/healthz", "/"]


@pytest.fixture(scope="module")
def client(plain_openvino: Predictor, tissue_path: Path) -> Client:
    return client_of(Segmenter(plain_openvino), slides=[tissue_path.parent])


def ask(client: Client, path: str, method: str, mode: Any, examples: int) -> None:
    """Ask what the description allows, or forbids, and hold the answers against it."""
    described = schemathesis.openapi.from_wsgi("/openapi.json", client.app, headers=BEARER)
    cases = described[path][method].as_strategy(generation_mode=mode)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def answered(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(headers=BEARER, checks=CHECKS)

    answered()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_prompts_are_answered_as_described(client: Client, mode: GenerationMode) -> None:
    ask(client, "/v1/segment", "POST", mode, examples=60)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_searches_are_answered_as_described(client: Client, mode: GenerationMode) -> None:
    ask(client, "/v1/find", "POST", mode, examples=40)


@pytest.mark.parametrize("path", LOOKS)
def test_looks_are_answered_as_described(client: Client, path: str) -> None:
    ask(client, path, "GET", GenerationMode.POSITIVE, examples=3)


def test_it_says_from_how_many_prompts_on_an_answer_is_sent_feature_by_feature() -> None:
    segment = openapi()["paths"]["/v1/segment"]["post"]
    (schema,) = (
        one["schema"]["$ref"].rpartition("/")[2]
        for kind, one in segment["responses"]["200"]["content"].items()
        if kind == GEOJSON
    )

    assert f"from {STREAMED_PROMPTS_MIN} on feature by feature" in segment["description"]
    assert "problem" in openapi()["components"]["schemas"][schema]["properties"]


def test_all_operations_have_names_of_their_own() -> None:
    names = [
        operation["operationId"]
        for path in openapi()["paths"].values()
        for operation in path.values()
    ]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("change", "is_right"),
    [
        ({}, True),
        ({"slide": {"uri": "a", "width": 512.0, "height": 1e3}}, True),
        ({"slide": {"uri": "a", "width": 512.5, "height": 1}}, False),
        ({"options": {"class": "Tumor: Positive"}}, True),
        ({"options": {"class": " "}}, False),
        ({"options": {"class": "Tumor:"}}, False),
        ({"options": {"class": "a\u2028b"}}, False),
        ({"prompts": []}, False),
        ({"prompts": {"type": "FeatureCollection", "features": []}}, False),
        ({"prompts": [], "refine": {"type": "Feature"}}, True),
        ({"prompts": [], "refine": None}, False),
    ],
)
def test_the_schema_and_the_server_agree(change: dict[str, object], is_right: bool) -> None:
    body = {
        "slide": {"uri": "a", "width": 9, "height": 9, "mpp_x": 0.5},
        "prompts": [{"type": "Feature"}],
        **change,
    }
    document = openapi()
    schema = {"$ref": "#/components/schemas/SegmentRequest", "components": document["components"]}
    try:
        decode_segment(json.dumps(body).encode(), Limits(), MemoryBudget(1 << 30).reservation())
        takes = True
    except (OptionError, ProblemError):  # the server makes a problem of both
        takes = False

    assert takes is is_right
    assert jsonschema_rs.validator_for(schema).is_valid(body) is is_right
