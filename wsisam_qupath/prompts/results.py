"""Results of prompts: one :class:`Result` per prompt, or :class:`Empty` if there is no object."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import shapely
from shapely.geometry import LinearRing, MultiPolygon, Polygon

from ..options import Precision
from .prompt import Prompt

Scalar: TypeAlias = str | int | float | bool | None

_NAMESPACE = uuid.UUID("3d1c7a52-93a4-4f0e-8a68-0b7a4f6c2e91")
"""Namespace of the UUIDv5 result ids. Another value would rename every result ever written."""

ANSWERS = 3
"""Version of the answers, raised when pixels, planning or decoding change what comes out. Results
of an older one count as outdated.

1. Version 0.1 of the program.
2. Pixels as QuPath shows them; no outline ends where a patch ends; both masks of a pair decoder.
3. Nor does one end there where only the next coarser patch covers the slide.
"""

_ID_DECIMALS = 3
"""Decimals of coordinates in result ids, px: float noise must not change an id."""


@dataclass(frozen=True)
class Provenance:
    """The model that made a result, so that it can be audited and reproduced.

    Attributes:
        base, base_sha256: name and checksum of the base weights.
        adapter, adapter_sha256: name and checksum of the adapter, or None without one.
        hr_mpp, lr_mpp: µm per encoder pixel of the two patches; without an LR patch `lr_mpp` is
            None.
        patch: patch that the outline comes from, "hr" or "lr".
        version: version of this program.
        precision: numbers that the encoder computed in.
        answers: version of the answers; see :data:`ANSWERS`.
    """

    base: str
    base_sha256: str
    adapter: str | None
    adapter_sha256: str | None
    hr_mpp: float
    lr_mpp: float | None
    patch: str
    version: str
    precision: Precision = "bf16"
    answers: int = ANSWERS


@dataclass(frozen=True)
class Candidate:
    """Another object that the same prompt may have meant.

    Attributes: see :class:`Result`.
    """

    polygon: Polygon | MultiPolygon
    predicted_iou: float
    stability_score: float
    area_um2: float
    provenance: Provenance


@dataclass(frozen=True)
class Result:
    """The outline of the object that a prompt marks.

    Attributes:
        id: UUIDv5, from :func:`compute_result_id`.
        polygon: valid outline, level-0 px.
        predicted_iou: the model's own estimate of the IoU of its mask, 0 to 1.
        stability_score: see :func:`.polygons.stability_score`.
        area_um2: area inside the outline, µm².
        others: other objects that the prompt may mean, the likeliest first; a click may mean a
            nucleus, a gland or a region.
        rank: place among the answers to its prompt, 1 is the likeliest; None where it is the only
            one.
    """

    prompt: Prompt
    id: str
    polygon: Polygon | MultiPolygon
    predicted_iou: float
    stability_score: float
    area_um2: float
    provenance: Provenance
    others: tuple[Candidate, ...] = ()
    rank: int | None = None


def list_candidates(result: Result) -> list[Result]:
    """List a result and its others as results of their own, the likeliest first.

    The ids of the others are derived from that of the result.
    """
    if not result.others:
        return [result]
    others = (
        Result(
            result.prompt,
            str(uuid.uuid5(_NAMESPACE, f"{result.id} {rank}")),
            **vars(other),
            rank=rank,
        )
        for rank, other in enumerate(result.others, start=2)
    )
    return [replace(result, others=(), rank=1), *others]


@dataclass(frozen=True)
class Empty:
    """A prompt for which the model found no object.

    Attributes:
        id: id that a result would have had.
        reason: why there is no outline, a few words for the user.
    """

    prompt: Prompt
    id: str
    reason: str
    polygon: ClassVar[None] = None
    predicted_iou: ClassVar[float] = 0.0


@dataclass(frozen=True)
class SerializedResult:
    """A :class:`Result` or :class:`Empty` as plain values, for files and other processes.

    Attributes:
        id: id of the result; see :func:`compute_result_id`.
        feature: outline as GeoJSON; None if the model sees nothing.
        reason: why there is no outline, a few words for the user; else empty.
        others: other candidates as GeoJSON; see :class:`Result`.
    """

    id: str
    prompt_id: str
    feature: dict[str, Any] | None
    reason: str = ""
    others: tuple[dict[str, Any], ...] = ()


def compute_result_id(
    prompt: Prompt,
    base_sha256: str,
    adapter_sha256: str | None,
    options: Mapping[str, Scalar],
    *,
    answers: int = ANSWERS,
) -> str:
    """Compute the UUIDv5 of everything that decides a result: the same prompt keeps its id.

    The class of the prompt is no part of it, nor is the order in which an outline is drawn.

    Args:
        options: settings that change the outline, such as the tolerance of simplification.
        answers: version of the answers; an older one gives the id that a result had then.
    """
    box, outline = prompt.l0_box, prompt.l0_outline
    question: dict[str, Any] = {
        "prompt": prompt.id,
        "plane": [prompt.plane.c, prompt.plane.z, prompt.plane.t],
        "box": None if box is None else _round_points([(box.x0, box.y0), (box.x1, box.y1)]),
        "outline": None if outline is None else _canonicalize(outline),
        "positives": _round_points(prompt.l0_positives),
        "negatives": _round_points(prompt.l0_negatives),
        "base": base_sha256,
        "adapter": adapter_sha256,
        "options": dict(options),
    }
    if prompt.l0_earlier is not None:  # else results of before would have other ids
        question["earlier"] = _canonicalize(prompt.l0_earlier)
    if prompt.l0_background is not None:  # as above
        question["background"] = _canonicalize(prompt.l0_background)
    if answers > 1:  # the same: version 1 did not state it
        question["answers"] = answers
    text = json.dumps(question, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return str(uuid.uuid5(_NAMESPACE, text))


def _round_points(points: Iterable[tuple[float, ...]]) -> list[list[float]]:
    # Adding 0.0 makes one zero of the two.
    return [[round(float(value), _ID_DECIMALS) + 0.0 for value in point[:2]] for point in points]


def _canonicalize(outline: Polygon | MultiPolygon) -> list[list[list[list[float]]]]:
    """Normalize an outline to rings of points, whatever their start and direction.

    The normal form of GEOS is not used: it may change between releases.
    """
    return sorted(
        [_canonicalize_ring(part.exterior), *sorted(map(_canonicalize_ring, part.interiors))]
        for part in shapely.get_parts(outline)
    )


def _canonicalize_ring(ring: LinearRing) -> list[list[float]]:
    points = _round_points(ring.coords[:-1])
    start = points.index(min(points))
    forwards = points[start:] + points[:start]
    return min(forwards, forwards[:1] + forwards[:0:-1])
