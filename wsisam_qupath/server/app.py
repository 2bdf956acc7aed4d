"""The Flask application: routes decode, call, encode."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from datetime import datetime
from http import HTTPStatus
from typing import Any, NamedTuple

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException, InternalServerError

from .. import __version__
from ..errors import WsiSamError, escape
from ..inference.predictor import Predictor
from ..report.progress import count_noun
from .config import ServerConfig
from .decoding import decode_segment
from .finding import decode_find, find
from .metrics import Metrics
from .openapi import openapi
from .page import page_policy, status_page
from .problems import ProblemError, ProblemName, document, make_problem
from .queue import ClientGoneError, DroppedError, QueueSlot
from .schemas import (
    GEOJSON,
    GEOJSON_SEQ,
    PROBLEM_JSON,
    RECORD_SEPARATOR,
    STREAMED_PROMPTS_MIN,
    Health,
    Info,
    LimitsInfo,
    ModelInfo,
)
from .security import check_host, check_samapi, check_token, is_samapi
from .service import Record, Service
from .wsgi import IS_GONE

_LOG = logging.getLogger(__name__)

_OPEN = {"health", "status_page", "view.page", "view.part", "view.enter"}
"""Endpoints that answer without a token."""

_LONGEST_WAIT_S = 60.0
"""Longest time that a request waits for a model that is still being loaded."""

_WAIT = re.compile(r'\s*wait\s*=\s*"?(\d+)"?\s*(;|$)', re.ASCII | re.IGNORECASE)
"""One of the preferences of a client: how long it waits, in seconds."""

_NAME_OF: dict[int, ProblemName] = {
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
    500: "failed",
}

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class _App(Flask):
    def log_exception(self, exc_info: Any) -> None:
        """Log the cause of a status 500 under the request id that the client received."""
        _LOG.error("Request %s", g.request_id, exc_info=exc_info)


def create_app(
    service: Service, config: ServerConfig, *blueprints: Blueprint, metrics: Metrics | None = None
) -> Flask:
    """Create the Flask application of one server; it has no state of its own.

    Args:
        blueprints: more routes under the same rules: host, token, problems, log.
        metrics: what the service counts with; None if nothing is counted.
    """
    metrics = metrics or Metrics()
    app = _App(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = config.limits.body_bytes
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    _add_rules(app, config, metrics)
    _add_problems(app)
    _add_segment(app, service, config, metrics)
    _add_find(app, service, config)
    _add_looks(app, service, config, metrics)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return app


def json_body() -> bytes:
    """Read the body of a request, which must be JSON.

    Raises:
        ProblemError: it is said to be something else, or breaks off.
    """
    if request.mimetype != "application/json":
        raise ProblemError(
            "unsupported-media-type", "Send JSON, with `Content-Type: application/json`."
        )
    try:
        return request.get_data(cache=False)
    except OSError as exc:
        raise ProblemError(
            "bad-request", f"The body did not come to its end ({exc}). Send it again."
        ) from exc


def _add_rules(app: Flask, config: ServerConfig, metrics: Metrics) -> None:
    """Add what applies to every request: its id, checks of host and token, a line in the log."""

    @app.before_request
    def check() -> None:
        g.request_id = str(uuid.uuid4())
        g.came = time.perf_counter()
        host = request.headers.get("Host")
        check_host(host, config)
        if is_samapi(request.path, config):
            g.client_name = check_samapi(request.remote_addr, host, config)
        elif request.endpoint not in _OPEN:
            g.client_name = check_token(request.headers.get("Authorization"), config)

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.request_id
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.call_on_close(_log_when_sent(response, metrics))
        return response


def _log_when_sent(response: Response, metrics: Metrics) -> Callable[[], None]:
    """Count the request and log it when its response has been sent."""
    request_id, came, prompts = g.request_id, g.came, g.get("prompts")
    # Without the query, in which some clients put what is secret.
    asked = escape(f"{request.method} {request.path}", 200)
    client = f"{request.remote_addr} {g.get('client_name', '')}".rstrip()
    route = request.url_rule.rule if request.url_rule else "none"

    def write() -> None:
        seconds = time.perf_counter() - came
        metrics.observe_request(route, response.status_code, seconds, prompts)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        line = f"{now} {request_id} {client} {asked} {response.status_code} {1000 * seconds:.0f} ms"
        about = "" if prompts is None else f" {count_noun(prompts, 'prompt')}"
        print(line + about, file=sys.stderr, flush=True)  # noqa: T201

    return write


def _add_problems(app: Flask) -> None:
    @app.errorhandler(WsiSamError)
    def handle_own_error(error: WsiSamError) -> Response:
        return problem_response(make_problem(error))

    @app.errorhandler(ClientGoneError)
    def nobody_there(_: ClientGoneError) -> Response:
        return Response(status=499)  # nginx's number; only the log sees it

    @app.errorhandler(InternalServerError)
    def unforeseen(_: InternalServerError) -> Response:
        return problem_response(unforeseen_problem())

    @app.errorhandler(HTTPException)
    def handle_http_error(error: HTTPException) -> Response:
        name = _NAME_OF.get(error.code or 500, "bad-request")
        detail = error.description or "The request cannot be understood."
        problem = ProblemError(name, f"{detail} See /openapi.json.")
        response = problem_response(problem)
        for header, value in error.get_headers():
            if header in ("Allow", "Location"):
                response.headers[header] = value
        return response


def unforeseen_problem() -> ProblemError:
    """Turn an internal error into a problem with status 500."""
    return ProblemError(
        "failed",
        "The server met an unforeseen error. Its log has the cause under this id: please report "
        "it with both.",
    )


def problem_response(problem: ProblemError) -> Response:
    """Make the response for a problem, as RFC 9457 specifies."""
    body = json.dumps(document(problem, g.request_id), allow_nan=False)
    return Response(body, problem.status, headers=problem.headers, content_type=PROBLEM_JSON)


def _add_segment(app: Flask, service: Service, config: ServerConfig, metrics: Metrics) -> None:
    @app.post("/v1/segment")
    def segment() -> Response:
        return _segment(service, config)

    @app.post("/v1/prepare")
    def prepare() -> Response:
        try:
            response = _segment(service, config, is_ahead=True)
        except DroppedError:
            metrics.observe_prepared("dropped")
            return Response(status=HTTPStatus.NO_CONTENT)
        metrics.observe_prepared("answered")
        return response


def _segment(service: Service, config: ServerConfig, *, is_ahead: bool = False) -> Response:
    """Answer prompts as the client wants: one after the other, or all at once."""
    with ExitStack() as stack:
        slot = stack.enter_context(take_slot(service, config, is_ahead=is_ahead))
        wanted = decode_segment(json_body(), config.limits, slot.memory)
        g.prompts = len(wanted.features)
        records = stack.enter_context(closing(service.segment(wanted, slot, g.client_name)))
        if is_ahead or (not _wants_stream() and g.prompts < STREAMED_PROMPTS_MIN):
            return Response(_collection(records), content_type=GEOJSON)
        return _send_as_ready(records, slot, stack)


def _wanted_wait_s() -> float:
    """Read from ``Prefer: wait=SECONDS`` (RFC 7240) how long the client waits for the model."""
    for preference in request.headers.get("Prefer", "").split(","):
        if found := _WAIT.match(preference):
            return min(float(found[1]), _LONGEST_WAIT_S)
    return 0.0


@contextmanager
def take_slot(
    service: Service, config: ServerConfig, *, is_ahead: bool = False
) -> Iterator[QueueSlot]:
    """Hold a slot of the device's queue for the request; see :meth:`.DeviceQueue.acquire`."""
    is_gone = request.environ.get(IS_GONE, lambda: False)
    slot = service.device_queue.acquire(is_gone, config.limits.request_seconds, is_ahead=is_ahead)
    slot.patience_s = min(_wanted_wait_s(), config.limits.request_seconds / 2)
    try:
        yield slot
    finally:
        slot.release()


def _add_find(app: Flask, service: Service, config: ServerConfig) -> None:
    @app.post("/v1/find")
    def find_objects() -> Response:
        with ExitStack() as stack:
            slot = stack.enter_context(take_slot(service, config))
            wanted = decode_find(json_body(), config.limits, slot)
            records = stack.enter_context(closing(find(service, wanted, slot, g.client_name)))
            return _send_as_ready(records, slot, stack)


def _send_as_ready(records: Iterator[Record], slot: QueueSlot, stack: ExitStack) -> Response:
    """Send records one by one; resources on the stack are closed after the last one."""
    as_sequence = _wants_stream()
    # The first one now: what goes wrong until then has a status of its own.
    first = next(records, None)
    encode = _encode_sequence if as_sequence else _encode_collection
    sent = encode(_stream(first, records, slot, g.request_id))
    response = Response(sent, content_type=GEOJSON_SEQ if as_sequence else GEOJSON)
    response.call_on_close(stack.pop_all().close)
    return response


def _add_looks(app: Flask, service: Service, config: ServerConfig, metrics: Metrics) -> None:
    """Add the routes that only read the server's state."""

    @app.get("/healthz")
    def health() -> Response:
        return json_response(Health(state=service.models.state, version=__version__))

    @app.get("/v1/info")
    def info() -> Response:
        return json_response(_info(service, config))

    @app.get("/openapi.json", endpoint="openapi")
    def describe_api() -> Response:
        return Response(json.dumps(openapi()), content_type="application/json")

    @app.get("/metrics", endpoint="metrics")
    def report_metrics() -> Response:
        return Response(metrics.text(), content_type=CONTENT_TYPE_LATEST)

    @app.get("/", endpoint="status_page")
    def page() -> Response:
        device_queue = service.device_queue
        text = status_page(
            _info(service, config),
            url=request.host_url.rstrip("/"),
            in_hand=device_queue.in_hand,
            waiting=device_queue.waiting,
            recent=metrics.recent,
        )
        headers = {"Content-Security-Policy": page_policy()}
        return Response(text, headers=headers, content_type="text/html; charset=utf-8")


def _wants_stream() -> bool:
    accepted = request.accept_mimetypes.best_match([GEOJSON, GEOJSON_SEQ], default=GEOJSON)
    return accepted == GEOJSON_SEQ


def json_response(answer: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Make the response of an answer."""
    return Response(answer.model_dump_json(), status, content_type="application/json")


def _collection(records: Iterable[Record]) -> str:
    return json.dumps({"type": "FeatureCollection", "features": list(records)}, allow_nan=False)


def _stream(
    first: Record | None, rest: Iterable[Record], slot: QueueSlot, request_id: str
) -> Iterator[_Sent]:
    """Stream records as they are ready; if the work fails midway, end with the problem."""
    if first is None:
        return
    try:
        yield _Sent(first)
        for record in rest:
            slot.extend_deadline()
            yield _Sent(record)
    except ClientGoneError:
        return
    except WsiSamError as exc:
        yield _Sent(document(make_problem(exc), request_id), is_problem=True)
    except Exception:  # noqa: BLE001 - what Flask does for an answer that has not begun
        _LOG.exception("Request %s", request_id)
        yield _Sent(document(unforeseen_problem(), request_id), is_problem=True)
    finally:
        slot.release()


class _Sent(NamedTuple):
    """What is sent next: a record, or the problem that ends the stream."""

    content: Record
    is_problem: bool = False


def _encode_sequence(sent: Iterable[_Sent]) -> Iterator[bytes]:
    return (encode_record(one.content) for one in sent)


def _encode_collection(sent: Iterable[_Sent]) -> Iterator[bytes]:
    """Encode a FeatureCollection; a problem becomes its last member."""
    yield b'{"type": "FeatureCollection", "features": ['
    end = b"]}"
    for number, one in enumerate(sent):
        text = json.dumps(one.content, allow_nan=False).encode("ascii")
        if one.is_problem:
            end = b'], "problem": ' + text + b"}"
        else:
            yield (b", " if number else b"") + text
    yield end


def encode_record(record: Record) -> bytes:
    """Encode one record of RFC 8142."""
    return RECORD_SEPARATOR + json.dumps(record, allow_nan=False).encode("ascii") + b"\n"


def _info(service: Service, config: ServerConfig) -> Info:
    loaded = service.models.loaded
    return Info(
        version=__version__,
        state=service.models.state,
        failure=service.models.failure,
        model=_model_info(loaded.predictor) if loaded else None,
        device=loaded.predictor.backend.name if loaded else None,
        reads_slides=config.reads_slides,
        adapters=list(service.adapters),
        limits=LimitsInfo(**asdict(config.limits), streamed_prompts=STREAMED_PROMPTS_MIN),
    )


def _model_info(predictor: Predictor) -> ModelInfo:
    base, adapter = predictor.base, predictor.adapter
    return ModelInfo(
        base=base.name,
        base_sha256=base.sha256,
        adapter=adapter.name if adapter else None,
        adapter_sha256=adapter.sha256 if adapter else None,
        hr_mpp=predictor.hr_mpp,
        reads_lr=predictor.patch_count == 2,
    )
