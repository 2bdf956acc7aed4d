"""Make ``/openapi.json`` from the types that validate requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter

from .. import __version__
from .find_schemas import FindRequest
from .job_schemas import (
    JobList,
    JobRequest,
    JobStatus,
    ShownImages,
    TrainingRequest,
    TrainingStatus,
)
from .problems import STATUS_OF, ProblemName
from .schemas import (
    GEOJSON,
    GEOJSON_SEQ,
    PROBLEM_JSON,
    STREAMED_PROMPTS_MIN,
    FeatureCollection,
    Health,
    Info,
    Outlines,
    Problem,
    SegmentRequest,
)

JSON = "application/json"
_TEXT: dict[str, Any] = {"type": "string"}

Content: TypeAlias = Mapping[str, Any]
"""Media types, and the type of what they hold; None is text."""


Mode: TypeAlias = Literal["validation", "serialization"]
References: TypeAlias = Mapping[tuple[Any, Mode], Any]
"""References to schemas by type, and by whether it is received or sent."""


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    Attributes:
        answers: successful answers, by status.
        problems: names of the problems that it may answer with, beside those of token and host.
        is_open: whether it needs no token.
        description: what the summary leaves out.
    """

    method: Literal["get", "post", "put", "delete"]
    path: str
    id: str
    summary: str
    answers: Mapping[int, Content]
    request: type[Any] | None = None
    problems: tuple[ProblemName, ...] = ()
    is_open: bool = False
    description: str = ""


_BODY: tuple[ProblemName, ...] = (
    "bad-request",
    "too-large",
    "unsupported-media-type",
    "invalid",
    "busy",
)

_SEGMENT: tuple[ProblemName, ...] = (
    *_BODY,
    "slide-outside",
    "slide-missing",
    "pixels-needed",
    "slide-differs",
    "no-pixel-size",
    "slide-unreadable",
    "failed",
    "loading",
    "too-slow",
)

_PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "wait=SECONDS: how long to wait for a model that is still being loaded, in "
    "place of a refusal at once (RFC 7240).",
    "schema": {"type": "string"},
}

_JOB = "/v1/jobs/{job_id}"
_TRAINING = "/v1/trainings/{job_id}"

OPERATIONS = (
    Operation(
        "post",
        "/v1/segment",
        "segment",
        "Outline what prompts point at",
        {200: {GEOJSON: Outlines, GEOJSON_SEQ: None}},
        SegmentRequest,
        _SEGMENT,
        description="Each result of application/geo+json-seq is sent when it is ready. A "
        f"FeatureCollection is sent whole for up to {STREAMED_PROMPTS_MIN - 1} prompts; from "
        f"{STREAMED_PROMPTS_MIN} on feature by feature, each when it is ready. If the work fails "
        "midway, the last record, or the last member of the collection, is the problem.",
    ),
    Operation(
        "post",
        "/v1/prepare",
        "prepare",
        "The same ahead of time, after all other work; 204 where the next such request came first",
        {200: {GEOJSON: FeatureCollection}, 204: {}},
        SegmentRequest,
        _SEGMENT,
    ),
    Operation(
        "post",
        "/v1/find",
        "find",
        "Find objects that look like examples, or all of one size",
        {200: {GEOJSON: Outlines, GEOJSON_SEQ: None}},
        FindRequest,
        tuple(name for name in _SEGMENT if name != "pixels-needed"),
        description="Each object is sent when it is found; closing the connection ends the search. "
        "The server reads the slide itself. If the work fails midway, the last record, or the last "
        "member of the collection, is the problem.",
    ),
    Operation("get", "/v1/info", "info", "Version, model, device, limits", {200: {JSON: Info}}),
    Operation(
        "post",
        "/v1/jobs",
        "add_job",
        "Outline all prompts of a QuPath project, and write them into it",
        {202: {JSON: JobStatus}},
        JobRequest,
        (*_BODY, "slide-outside", "not-found", "failed"),
    ),
    Operation("get", "/v1/jobs", "jobs", "All jobs, oldest first", {200: {JSON: JobList}}),
    Operation("get", _JOB, "job", "How far a job is", {200: {JSON: JobStatus}}),
    Operation(
        "delete",
        _JOB,
        "delete_job",
        "Cancel a job that runs or waits; forget one that has ended",
        {202: {JSON: JobStatus}, 204: {}},
    ),
    Operation(
        "get",
        f"{_JOB}/results",
        "job_results",
        "Outlines that were not written, because QuPath shows their image",
        {200: {GEOJSON_SEQ: None}},
        problems=("failed",),
    ),
    Operation(
        "put",
        f"{_JOB}/open-images",
        "show_images",
        "Say which images QuPath shows now",
        {200: {JSON: JobStatus}},
        ShownImages,
        _BODY,
    ),
    Operation(
        "post",
        "/v1/trainings",
        "train",
        "Train an adapter on the annotations of a QuPath project; one at a time",
        {202: {JSON: TrainingStatus}},
        TrainingRequest,
        (*_BODY, "slide-outside", "not-found", "failed"),
        description="Offered to requests, now and later, where it is better than what the server "
        "answers with on slides that were left to validate on. Only a server that may read every "
        "file of its user trains.",
    ),
    Operation("get", _TRAINING, "training", "How far it is", {200: {JSON: TrainingStatus}}),
    Operation(
        "delete",
        _TRAINING,
        "cancel_training",
        "Stop it; the same request goes on from its last checkpoint",
        {200: {JSON: TrainingStatus}},
    ),
    Operation(
        "get",
        f"{_TRAINING}/report",
        "training_report",
        "Its report, once there is one",
        {200: {"text/html": None}},
    ),
    Operation("get", "/metrics", "metrics", "For Prometheus", {200: {"text/plain": None}}),
    Operation("get", "/openapi.json", "openapi", "This document", {200: {JSON: dict[str, Any]}}),
    Operation(
        "get",
        "/healthz",
        "health",
        "Whether the model is loaded",
        {200: {JSON: Health}},
        is_open=True,
    ),
    Operation("get", "/", "status_page", "For people", {200: {"text/html": None}}, is_open=True),
)


@lru_cache(maxsize=1)
def openapi() -> dict[str, Any]:
    """Make the OpenAPI 3.1 document."""
    schemas, references = _schemas()
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        described = _describe_operation(operation, references)
        paths.setdefault(operation.path, {})[operation.method] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wsisam-qupath",
            "version": __version__,
            "description": "Outlines on whole-slide images from rectangles, points and rough "
            "outlines. All coordinates are level-0 px as QuPath shows them.",
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas() -> tuple[dict[str, Any], References]:
    """Make the schemas of all named types, and the references to them."""
    received = {operation.request for operation in OPERATIONS if operation.request is not None}
    sent = {Problem} | {
        kind
        for operation in OPERATIONS
        for content in operation.answers.values()
        for kind in content.values()
        if kind is not None
    }
    # Sets have no order, and the document is to be the same each time.
    wanted: list[tuple[Any, Mode, TypeAdapter[Any]]] = [
        *((kind, "validation", TypeAdapter(kind)) for kind in sorted(received, key=str)),
        *((kind, "serialization", TypeAdapter(kind)) for kind in sorted(sent, key=str)),
    ]
    references, definitions = TypeAdapter.json_schemas(
        wanted, ref_template="#/components/schemas/{model}"
    )
    return definitions["$defs"], references


def _describe_operation(operation: Operation, references: References) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        **({"description": operation.description} if operation.description else {}),
        "responses": {
            **{
                str(status): _answer("What was asked for", _content(content, references))
                for status, content in operation.answers.items()
            },
            **_problems(operation, references),
        },
    }
    if operation.is_open:
        described["security"] = []
    if "loading" in operation.problems:
        described["parameters"] = [_PREFER]
    if "{job_id}" in operation.path:
        described["parameters"] = [
            {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    if operation.request is not None:
        described["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": references[operation.request, "validation"]}},
        }
    return described


def _problems(operation: Operation, references: References) -> dict[str, Any]:
    names: list[ProblemName] = ["forbidden-host", *operation.problems]
    names += [] if operation.is_open else ["unauthorized"]
    names += ["not-found"] if "{job_id}" in operation.path else []
    by_status: dict[int, list[str]] = {}
    for name in dict.fromkeys(names):
        by_status.setdefault(STATUS_OF[name], []).append(name)
    content = {PROBLEM_JSON: {"schema": references[Problem, "serialization"]}}
    return {
        str(status): _answer(" or ".join(found), content, retry=status == 503)
        for status, found in sorted(by_status.items())
    }


def _answer(description: str, content: Mapping[str, Any], *, retry: bool = False) -> dict[str, Any]:
    headers = {"X-Request-Id": {"schema": _TEXT, "required": True}}
    if retry:
        headers["Retry-After"] = {"schema": _TEXT, "required": True}
    answer: dict[str, Any] = {"description": description, "headers": headers}
    if content:
        answer["content"] = dict(content)
    return answer


def _content(content: Content, references: References) -> dict[str, Any]:
    return {
        media_type: {"schema": _TEXT if kind is None else references[kind, "serialization"]}
        for media_type, kind in content.items()
    }
