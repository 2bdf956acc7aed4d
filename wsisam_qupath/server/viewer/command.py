"""Run ``view``: the page of a slide or a folder, until a signal ends it."""

from __future__ import annotations

import sys
import threading
import webbrowser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...options import ModelSpec
from ...slide.calibration import override
from ..app import create_app
from ..command import ServeRequest, make_parts
from .entrance import OneTimeCode
from .place import find_place
from .routes import Viewer, make_view_routes

_FIRST_SECONDS = 3.0
"""Longest time that the model waits for the first tiles to be read, and again for a page."""


@dataclass(frozen=True)
class ViewRequest:
    """The options of ``view``, under the names that they have on the command line.

    Attributes:
        place: a slide, or a folder of slides.
        models: models to offer; the first one answers.
        mpp: pixel size of all slides, µm per level-0 px; None is what each file states.
        port: port on this computer; 0 is any free one.
        opens_browser: whether the page is opened, or only its address is printed.
    """

    place: Path
    models: tuple[ModelSpec, ...] = (ModelSpec(),)
    mpp: float | None = None
    port: int = 0
    opens_browser: bool = True


def run_view(request: ViewRequest) -> None:
    """Show slides in a browser until a signal ends it.

    Raises:
        SlideError: there is no slide, or the only one cannot be shown.
        OptionError: something about the options; see their messages.
        OutputError: the connection file cannot be written.
    """
    if request.mpp is not None:
        override(request.mpp)
    place = find_place(request.place)
    serve = ServeRequest(models=request.models, port=request.port, slides=(place.folder,))
    parts = make_parts(serve)
    entrance = OneTimeCode(parts.config.token)
    viewer = Viewer(place, parts.service.slides, entrance, request.mpp)
    if place.slide_name is not None:
        viewer.open(place.slide_name)  # now, so that an error is told here and the page is quick
    config, budget = parts.config, parts.service.device_queue.budget
    routes = make_view_routes(viewer, config.limits, budget)
    app = create_app(parts.service, config, routes, metrics=parts.metrics)

    def show(url: str) -> None:
        address = f"{url}/view#token={config.token}"
        print(f"Open {address}\nStop with Ctrl-C.", file=sys.stderr, flush=True)  # noqa: T201
        if request.opens_browser:
            once = f"{url}/view#once={entrance.code}"
            threading.Thread(target=_open_browser, args=(once,), daemon=True).start()

    def show_first() -> None:
        # Loading takes all cores for some seconds: the first view comes before it.
        viewer.read_first(_FIRST_SECONDS)
        viewer.await_shown(_FIRST_SECONDS)

    parts.run(app, before_models=show_first, on_start=show)


def _open_browser(address: str) -> None:
    """Open a page in the user's browser; without one, the user opens the printed address."""
    with suppress(webbrowser.Error, OSError):
        webbrowser.open(address)
