"""The page in a browser over HTTP: routes decode, call, encode."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path

from flask import Blueprint, Response, request

from ...errors import OutputError, WsiSamError
from ...geometry import Mpp
from ...slide import Slide
from ..app import json_body, json_response
from ..budget import MemoryBudget
from ..config import MANY_VERTICES, Limits
from ..decoding import decode, make_field_problem
from ..problems import ProblemError, make_invalid_problem
from ..queue import ClientGoneError, DroppedError
from ..schemas import SlideAsOpen
from ..slides import Slides
from ..wsgi import IS_GONE
from .entrance import OneTimeCode
from .objects import ObjectFiles
from .parts import PAGE, find_part, page_policy
from .place import ShownPlace
from .schemas import Entrance, SaveRequest, ShownSlide, SlideNames
from .tiles import TILE_PX, TileName, TilePyramid, Tiles

_IDLE_SECONDS = 0.4
"""Time without a request for a tile after which a page has all that it shows."""


@dataclass(frozen=True)
class Viewer:
    """What the routes of the page share.

    Attributes:
        place: slides that are shown.
        slides: opens slides that the server may read.
        entrance: lets the first page in.
        mpp: pixel size of all slides, µm per level-0 px; None is what each file states.
        is_shown: set when a page has asked for all that it begins with.
    """

    place: ShownPlace
    slides: Slides
    entrance: OneTimeCode
    mpp: float | None = None
    tiles: Tiles = field(default_factory=Tiles)
    objects: ObjectFiles = field(default_factory=ObjectFiles)
    is_shown: threading.Event = field(default_factory=threading.Event)

    def open(self, name: str) -> Slide:
        """Open a slide by its name.

        Raises:
            ProblemError: it may not be read, is not there, or cannot be shown.
        """
        mpp = None if self.mpp is None else Mpp(self.mpp, self.mpp)
        try:
            return self.slides.open_location(self.place.locate(name), mpp)
        except ProblemError as problem:
            if problem.name != "no-pixel-size":
                raise
            raise ProblemError(
                problem.name,
                f"{name} states no pixel size. Start the page again with its µm per pixel (mpp): "
                "0.25 for a 40x scan, 0.5 for 20x.",
            ) from problem

    def describe(self, name: str) -> ShownSlide:
        """State how large a slide is, and which tiles it has; raises the same as :meth:`open`."""
        slide = self.open(name)
        pyramid = TilePyramid(slide.width_px, slide.height_px)
        return ShownSlide(
            name=name,
            slide=SlideAsOpen(
                uri=slide.uri,
                width=slide.width_px,
                height=slide.height_px,
                mpp_x=self.mpp,
                mpp_y=self.mpp,
            ),
            mpp=(slide.mpp.x + slide.mpp.y) / 2,
            tile_px=TILE_PX,
            first_level=pyramid.first_level,
            top_level=pyramid.top_level,
        )

    def read_first(self, seconds: float) -> None:
        """Read what a page shows first, until a page has come.

        A slide that cannot be shown is told of when the page asks for it.

        Args:
            seconds: longest time that it may take.
        """
        until = time.monotonic() + seconds

        def check() -> None:
            if self.is_shown.is_set() or time.monotonic() > until:
                raise DroppedError

        with suppress(WsiSamError, DroppedError):
            slide = self.open(self.place.list_slides()[0])
            for tile in TilePyramid(slide.width_px, slide.height_px).list_first():
                self.tiles.encode(slide, tile, check)

    def await_shown(self, seconds: float) -> None:
        """Wait until a page has all that it shows first, or the time is up."""
        until = time.monotonic() + seconds
        self.is_shown.wait(seconds)
        while self.tiles.idle_seconds < _IDLE_SECONDS and time.monotonic() < until:
            time.sleep(_IDLE_SECONDS / 4)

    def find(self, name: str) -> Path:
        """Find the real path of a slide; raises the same as :meth:`open`."""
        return self.slides.find(self.place.locate(name))


def make_view_routes(viewer: Viewer, limits: Limits, budget: MemoryBudget) -> Blueprint:
    """Make the routes below ``/view``; tokens and problems are the application's concern."""
    routes = Blueprint("view", __name__, url_prefix="/view")
    entrance = viewer.entrance
    limits = replace(limits, vertices=max(limits.vertices, MANY_VERTICES))

    @routes.get("")
    def page() -> Response:
        return _part(PAGE)

    @routes.get("/files/<name>")
    def part(name: str) -> Response:
        return _part(name)

    @routes.post("/token")
    def enter() -> Response:
        token = entrance.exchange(request.headers.get("Authorization"))
        return json_response(Entrance(token=token))

    @routes.get("/slides")
    def slides() -> Response:
        return json_response(SlideNames(slides=viewer.place.list_slides()))

    @routes.get("/slide")
    def slide() -> Response:
        return json_response(viewer.describe(_slide_name()))

    @routes.get("/tiles/<int:level>/<int:column>/<int:row>")
    def tile(level: int, column: int, row: int) -> Response:
        opened = viewer.open(_slide_name())
        content = viewer.tiles.encode(opened, TileName(level, column, row), _make_check())
        if content is None:
            raise ProblemError("not-found", "The slide has no such tile. Ask for those it has.")
        return Response(content, content_type="image/jpeg")

    @routes.get("/objects")
    def objects() -> Response:
        answer = json_response(viewer.objects.load(viewer.find(_slide_name())))
        answer.call_on_close(viewer.is_shown.set)
        return answer

    @routes.put("/objects")
    def save() -> Response:
        with budget.reservation() as memory:
            wanted = decode(json_body(), SaveRequest, limits, memory)
            path = viewer.find(wanted.slide)
            features = [dict(one) for one in wanted.features]
            try:
                saved = viewer.objects.save(path, wanted.file, features, wanted.replaces)
            except OutputError as exc:
                raise make_invalid_problem("file", str(exc)) from exc
        return json_response(saved)

    return routes


def _slide_name() -> str:
    """Read the name of the slide that a request is about.

    Raises:
        ProblemError: it names none.
    """
    name = request.args.get("slide", "")
    if not name:
        raise make_field_problem("slide", "name a slide")
    return name


def _make_check() -> Callable[[], None]:
    """Make a check that ends the reading once the client has gone, as when the view was moved."""
    is_gone: Callable[[], bool] = request.environ.get(IS_GONE, lambda: False)

    def check() -> None:
        if is_gone():
            raise ClientGoneError

    return check


def _part(name: str) -> Response:
    """Send a part of the page; it holds nothing secret."""
    found = find_part(name)
    if found is None:
        raise ProblemError("not-found", "The page has no such part. Open /view.")
    content, content_type = found
    headers = {"Content-Security-Policy": page_policy()}
    return Response(content, HTTPStatus.OK, headers=headers, content_type=content_type)
