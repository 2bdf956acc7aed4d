"""The routes of the SAM extension for QuPath: they decode, call, encode."""

from __future__ import annotations

import json
import time

from flask import Blueprint, Response, g, request

from ... import __version__
from ...inference.segmenter import Segmenter
from ..app import json_body, take_slot
from ..config import ServerConfig
from ..decoding import decode, make_field_problem
from ..problems import ProblemError
from ..queue import QueueSlot
from ..security import SAMAPI_PATH
from ..service import Service
from .automask import find_everything
from .schemas import AutoMaskRequest, SamRequest, WeightsRequest
from .view import make_feature, open_view, outline_object

SINGLE_RESOLUTION = (
    "The SAM extension for QuPath is answered, too. It sends the view and no scale, so its answers "
    "are single-resolution; the WSI-SAM script in QuPath uses both resolutions of the slide."
)

_WEIGHTS_URL = "wsisam-qupath:"
"""Beginning of the address of weights that the extension is given; the name of an adapter
follows."""

_NO_DOWNLOAD = (
    "WSI-SAM answers with its own weights and downloads none. Name the file of an adapter when the "
    "server is started; it is then in the list."
)

_LOOK_SECONDS = 0.1
"""How often a request that waits for the model checks whether it is there."""


def make_samapi_routes(service: Service, config: ServerConfig) -> Blueprint:
    """Make the routes below ``/sam``; who may use them is the application's concern."""
    routes = Blueprint("samapi", __name__, url_prefix=SAMAPI_PATH)

    @routes.post("/")
    def predict() -> Response:
        with take_slot(service, config) as slot:
            g.prompts = 1
            wanted = decode(json_body(), SamRequest, config.limits, slot.memory)
            segmenter = _await_model(service, wanted.checkpoint_url, slot)
            view = open_view(wanted.b64img, segmenter, config.limits, slot.memory)
            return _json(outline_object(segmenter, view, wanted, slot, config.limits))

    @routes.post("/automask/")
    def mask_everything() -> Response:
        with take_slot(service, config) as slot:
            g.prompts = 1
            wanted = decode(json_body(), AutoMaskRequest, config.limits, slot.memory)
            segmenter = _await_model(service, wanted.checkpoint_url, slot)
            view = open_view(wanted.b64img, segmenter, config.limits, slot.memory)
            found = find_everything(segmenter, view, wanted, slot, config.limits)
            return _json([make_feature(one.polygon, one.predicted_iou, segmenter) for one in found])

    @routes.get("/version/")
    def version() -> Response:
        return _text(__version__)

    @routes.get("/weights/")
    def weights() -> Response:
        kind = request.args.get("type", "vit_t")[:100]
        names = list(service.adapters) or ["default"]
        return _json([{"type": kind, "name": n, "url": f"{_WEIGHTS_URL}{n}"} for n in names])

    @routes.post("/weights/")
    def register_weights() -> Response:
        with service.device_queue.budget.reservation() as memory:
            decode(json_body(), WeightsRequest, config.limits, memory)
        return _text(_NO_DOWNLOAD)

    @routes.get("/weights/cancel/")
    def cancel() -> Response:
        return _text("Nothing is being downloaded.")

    @routes.get("/progress/")
    def progress() -> Response:
        return _json(_describe_state(service))

    @routes.post("/sam3/")
    @routes.post("/video/")
    @routes.post("/sam3video/")
    @routes.post("/upload/")
    def refuse_others() -> Response:
        raise ProblemError(
            "not-found",
            "WSI-SAM takes no text, no videos and no stacks. Choose another SAM model than sam3, "
            "and the prompt mode XY, then mark the object with a rectangle or with points.",
        )

    return routes


def _await_model(service: Service, checkpoint_url: str | None, slot: QueueSlot) -> Segmenter:
    """Find the model that the weights' address names, or the first; waits while it is loaded.

    The extension shows nothing of an answer that asks to come again.

    Raises:
        ProblemError: there is none of that name, it cannot be loaded, or it takes too long.
    """
    url = checkpoint_url or ""
    name = url.removeprefix(_WEIGHTS_URL) if url.startswith(_WEIGHTS_URL) else None
    if name is not None and service.adapters and name not in service.adapters:
        message = "these weights are gone; choose the SAM model again to get the list"
        raise make_field_problem("checkpoint_url", message)
    loader = service.find_model(name if service.adapters else None)
    while loader.state == "loading":
        slot.check()
        try:
            return loader.segmenter()
        except ProblemError as problem:
            if problem.name != "loading":
                raise
        time.sleep(_LOOK_SECONDS)
    return loader.segmenter()


def _describe_state(service: Service) -> dict[str, object]:
    """Describe the state of the server as the extension shows the progress of a download."""
    if service.models.state == "ready":
        return {"message": "The model is loaded.", "percent": 100}
    message = service.models.failure or "The model is being loaded."
    return {"message": message, "percent": -1}


def _json(answer: object) -> Response:
    return Response(json.dumps(answer, allow_nan=False), content_type="application/json")


def _text(words: str) -> Response:
    return Response(words, content_type="text/plain; charset=utf-8")
