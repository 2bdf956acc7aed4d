"""Process a request to find objects on a slide that the server can read."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import replace

from shapely.geometry import MultiPolygon, Polygon

from ..errors import PromptError
from ..geojson import examples_from_geojson, region_from_geojson, to_feature
from ..geojson.provenance import add_client
from ..inference.find import Search, find_objects
from ..slide import PixelSource
from .config import MANY_VERTICES, Limits
from .decoding import decode, make_field_problem
from .find_schemas import FindRequest
from .queue import QueueSlot
from .schemas import Prompts, list_features
from .service import Record, Service


def decode_find(body: bytes, limits: Limits, slot: QueueSlot) -> FindRequest:
    """Decode the body of ``POST /v1/find``.

    Raises:
        ProblemError: see :func:`.decode`; also nothing to look for.
    """
    limits = replace(limits, vertices=max(limits.vertices, MANY_VERTICES))
    request = decode(body, FindRequest, limits, slot.memory)
    if not list_features(request.examples) and request.options.object_size_um is None:
        message = "give an example, or options.object_size_um: there is nothing to look for"
        raise make_field_problem("examples", message)
    return request


def find(
    service: Service, request: FindRequest, slot: QueueSlot, client_name: str = ""
) -> Generator[Record, None, None]:
    """Yield objects as they are found; closing the generator stops the search.

    The ``parent`` of each is the id of the area that it was found in, if there is one.

    The time limit of a request counts from one tile to the next.

    Raises:
        ProblemError: it cannot be answered as it is; before the first object.
        SlideError: the slide is damaged at some place.
        ClientGoneError: nobody is there any more.
    """
    segmenter = service.load_segmenter(request.adapter, slot)
    slide = service.slides.open(request.slide)
    options = request.options.outline
    found = find_objects(
        segmenter,
        slide,
        _make_search(request, slide),
        options,
        known=_list_outlines(request.known),
        turn=slot.turn,
        check=slot.check,
        on_tile=lambda _done, _total: slot.extend_deadline(),
    )
    areas = _list_areas(request.within)
    with closing(found) as objects:
        for one in objects:
            record = add_client(to_feature(one, options.object_type), client_name)
            yield {**record, "parent": _find_holder(areas, one.polygon)}


def _make_search(request: FindRequest, slide: PixelSource) -> Search:
    examples = examples_from_geojson(request.examples).clip_to_slide(slide.l0_box)
    negatives = examples_from_geojson(request.negatives).clip_to_slide(slide.l0_box)
    if list_features(request.examples) and not examples.wanted:
        message = (
            "all of them are of classes that end in '*', which are not wanted"
            if examples.unwanted
            else "none of them is an object on the slide"
        )
        raise make_field_problem("examples", message)
    region = None if request.within is None else region_from_geojson(request.within)
    unwanted = (*examples.unwanted, *negatives.wanted, *negatives.unwanted)
    return Search(examples.wanted, unwanted, region, request.min_score)


def _list_areas(within: Prompts | None) -> dict[str, Polygon | MultiPolygon]:
    """List the areas to look in by their ids; those without an id are left out."""
    areas: dict[str, Polygon | MultiPolygon] = {}
    for one in list_features(within or []):
        if one.get("id") is not None:
            with suppress(PromptError):  # it is no area
                areas[str(one["id"])] = region_from_geojson([one])
    return areas


def _find_holder(
    areas: dict[str, Polygon | MultiPolygon], outline: Polygon | MultiPolygon
) -> str | None:
    """Find the id of the area in which an object lies."""
    inside = outline.representative_point()
    return next((name for name, area in areas.items() if area.intersects(inside)), None)


def _list_outlines(prompts: Prompts) -> tuple[Polygon | MultiPolygon, ...]:
    found = examples_from_geojson(prompts)
    outlines = (one.l0_outline for one in (*found.wanted, *found.unwanted))
    return tuple(outline for outline in outlines if outline is not None)
