"""Decode request bodies; too large ones are refused before objects are built."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from ..errors import SlideError
from ..geojson.authorship import read_prompt_id
from ..geometry import Box
from ..slide import RgbArray
from ..slide.plain_image import DAMAGE, check_colors, convert_to_rgb
from .budget import Reservation
from .client_pixels import SentImage
from .config import Limits
from .json_extent import Extent, extent_of
from .problems import ProblemError
from .schemas import FieldError, Region, SegmentRequest, SlideAsOpen

if TYPE_CHECKING:
    from PIL.Image import Image

M = TypeVar("M", bound=BaseModel)

_TAGS = {"collection", "list"}
"""Names of alternatives in pydantic's paths, which are no fields."""

_ERRORS_MAX = 20
"""Most fields that are named; more would bury the first."""

_IMAGES = ("PNG", "JPEG")


_COPIES = 3
"""Copies of a body in memory: as it came, the strings in it, and the base64 images in those."""

_RGB_BYTES, _DECODER_BYTES = 3, 8
"""Bytes per pixel of an image as it is kept, and in addition while it is decoded."""


def decode(body: bytes, kind: type[M], limits: Limits, memory: Reservation) -> M:
    """Decode a typed request.

    Args:
        memory: grows by what the request takes once it is parsed, before it is parsed.

    Raises:
        ProblemError: it is no JSON, too much of it, or not what it should be.
    """
    extent = extent_of(body)
    _check_extent(extent, limits)
    memory.grow(_COPIES * len(body) + extent.parsed_bytes)
    try:
        values = from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as exc:
        raise ProblemError(
            "bad-request", f"The body is not JSON in UTF-8: {exc}. Send what /openapi.json says."
        ) from exc
    try:
        return kind.model_validate(values)
    except ValidationError as exc:
        raise make_fields_problem(
            _field_error(error) for error in exc.errors(include_url=False)
        ) from exc


def make_fields_problem(errors: Iterable[FieldError]) -> ProblemError:
    """Make the problem for invalid fields, of which there is at least one."""
    found = list(errors)
    first = found[0]
    more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
    return ProblemError(
        "invalid",
        f"{first.field}: {first.message}{more}. Correct it and send it again.",
        errors=found[:_ERRORS_MAX],
    )


def make_field_problem(field: str, message: str) -> ProblemError:
    """Make the problem for one invalid field."""
    return make_fields_problem([FieldError(field=field, message=message)])


def decode_segment(body: bytes, limits: Limits, memory: Reservation) -> SegmentRequest:
    """Decode the body of ``POST /v1/segment``.

    Raises:
        ProblemError: see :func:`decode`; also ids that stand twice.
    """
    request = decode(body, SegmentRequest, limits, memory)
    features = request.features
    if not features and request.refine is None:
        raise make_field_problem("prompts", "there is nothing to outline")
    count = sum(read_prompt_id(dict(feature)) is None for feature in features)
    if count > limits.prompts:
        raise ProblemError(
            "too-large",
            f"The request has {count} prompts; {limits.prompts} are taken at a time. Send "
            "them in parts.",
        )
    if errors := list(_find_repeated_ids(features)):
        raise make_fields_problem(errors)
    return request


def decode_image(
    text: str, field: str, limits: Limits, memory: Reservation
) -> tuple[RgbArray, str]:
    """Decode the one image of a request.

    Args:
        text: PNG or JPEG; base64.
        field: name of the field with the image, for messages.
        memory: grows by its size, before it is decoded.

    Returns:
        HWC uint8 RGB, and the SHA-256 of the file that was sent.

    Raises:
        ProblemError: it is too large, found out before it is decoded; no image.
    """
    content = _decode_bytes(text, field)
    image = _header(content, field, limits)
    memory.grow((_RGB_BYTES + _DECODER_BYTES) * image.width * image.height)
    return _decode_rgb(content, image, field)


def decode_images(
    regions: Iterable[Region], slide: SlideAsOpen, limits: Limits, memory: Reservation
) -> tuple[SentImage, ...]:
    """Decode the images that a client sent.

    Args:
        memory: grows by their size, before any is decoded.

    Raises:
        ProblemError: too many or too large, found out before any is decoded; no images.
    """
    found = list(regions)
    if len(found) > limits.regions:
        raise ProblemError(
            "too-large",
            f"The request has {len(found)} regions; {limits.regions} are taken at a time. Send "
            "fewer prompts at a time.",
        )
    opened: list[tuple[Region, bytes, Image]] = []
    for number, region in enumerate(found):
        _check_inside(region, slide, number)
        field = _image_field(number)
        content = _decode_bytes(region.image, field)
        opened.append((region, content, _header(content, field, limits)))
    sizes_px = [image.width * image.height for _, _, image in opened]
    total_px = sum(sizes_px)
    if total_px > limits.all_regions_px:
        raise ProblemError(
            "too-large",
            f"The images have {total_px} pixels in all; {limits.all_regions_px} are taken at a "
            "time. Send fewer prompts at a time.",
        )
    memory.grow(_RGB_BYTES * total_px + _DECODER_BYTES * max(sizes_px, default=0))
    return tuple(
        SentImage(_cover(region), *_decode_rgb(content, image, _image_field(number)))
        for number, (region, content, image) in enumerate(opened)
    )


def _check_extent(extent: Extent, limits: Limits) -> None:
    if extent.depth > limits.depth:
        raise ProblemError(
            "too-large", f"The JSON is nested deeper than {limits.depth}. Send plain GeoJSON."
        )
    # A position is a bracket with a comma or two; other things have commas too.
    if extent.lists > limits.vertices or extent.commas > 4 * limits.vertices:
        raise ProblemError(
            "too-large",
            f"The GeoJSON has more than {limits.vertices} positions. Simplify the outlines, or "
            "send fewer at a time.",
        )


def _field_error(error: ErrorDetails) -> FieldError:
    path = ""
    for part in error["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in _TAGS:
            path += f".{part}" if path else part
    return FieldError(field=path or "(all)", message=error["msg"].rstrip(".").lower())


def _find_repeated_ids(features: Iterable[Mapping[str, object]]) -> Iterator[FieldError]:
    seen: set[object] = set()
    for number, feature in enumerate(features):
        identity = feature.get("id")
        if identity is not None and identity in seen:
            yield FieldError(
                field=f"prompts[{number}].id", message="another prompt has the same id"
            )
        seen.add(identity)


def _check_inside(region: Region, slide: SlideAsOpen, number: int) -> None:
    if region.x + region.width > slide.width or region.y + region.height > slide.height:
        field = f"regions[{number}]"
        raise make_field_problem(field, "it reaches beyond the slide")


def _image_field(number: int) -> str:
    return f"regions[{number}].image"


def _cover(region: Region) -> Box:
    """Compute the area that a region covers, level-0 px."""
    return Box(region.x, region.y, region.x + region.width, region.y + region.height)


def _decode_bytes(text: str, field: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise make_field_problem(field, "it is not base64") from exc


def _header(content: bytes, field: str, limits: Limits) -> Image:
    """Open the image without decoding its pixels."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content), formats=_IMAGES)
    except UnidentifiedImageError as exc:
        raise make_field_problem(field, "it is neither PNG nor JPEG") from exc
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise _make_too_many_px_problem(field, limits) from exc
    except DAMAGE as exc:
        raise make_field_problem(field, f"it is damaged ({exc})") from exc
    try:
        check_colors(field, image)
    except SlideError as exc:
        raise make_field_problem(field, str(exc)) from exc
    if image.width * image.height > limits.region_px:
        raise _make_too_many_px_problem(field, limits)
    return image


def _decode_rgb(content: bytes, image: Image, field: str) -> tuple[RgbArray, str]:
    """Decode the pixels of an opened image, and the SHA-256 of its file."""
    try:
        image.load()
        rgb = convert_to_rgb(field, image)
    except DAMAGE as exc:
        raise make_field_problem(field, f"it is damaged ({exc})") from exc
    except SlideError as exc:
        raise make_field_problem(field, str(exc)) from exc
    return rgb, hashlib.sha256(content).hexdigest()


def _make_too_many_px_problem(field: str, limits: Limits) -> ProblemError:
    return ProblemError(
        "too-large",
        f"{field} has more than {limits.region_px} pixels. Send it smaller: where regions are "
        "asked for with 409, that says how large.",
    )
