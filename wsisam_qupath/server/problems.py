"""Errors as ``application/problem+json``: the only place that assigns HTTP statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeAlias

from ..errors import OptionError, PixelSizeError, PromptError, SlideError, WsiSamError
from ..options import OutlineOptions
from .schemas import PROBLEM_PREFIX, FieldError, NeededRegion, Problem

ProblemName: TypeAlias = Literal[
    "bad-request",
    "unauthorized",
    "forbidden-host",
    "slide-outside",
    "not-found",
    "slide-missing",
    "method-not-allowed",
    "pixels-needed",
    "slide-differs",
    "file-exists",
    "too-large",
    "unsupported-media-type",
    "invalid",
    "no-pixel-size",
    "slide-unreadable",
    "busy",
    "loading",
    "too-slow",
    "failed",
]

STATUS_OF: Mapping[ProblemName, int] = {
    "bad-request": 400,
    "unauthorized": 401,
    "forbidden-host": 403,
    "slide-outside": 403,
    "not-found": 404,
    "slide-missing": 404,
    "method-not-allowed": 405,
    "pixels-needed": 409,
    "slide-differs": 409,
    "file-exists": 409,
    "too-large": 413,
    "unsupported-media-type": 415,
    "invalid": 422,
    "no-pixel-size": 422,
    "slide-unreadable": 422,
    "failed": 500,
    "busy": 503,
    "loading": 503,
    "too-slow": 504,
}


_FIELD_OF = {
    option.name: f"options.{'class' if option.name == 'class_name' else option.name}"
    for option in fields(OutlineOptions)
}
"""Place of an option in a request; other options are fields of the request itself."""


class ProblemError(WsiSamError):
    """A request that cannot be processed as it is.

    Args:
        detail: what is wrong and how to fix it, a sentence or two.
        errors: errors by field, of ``invalid``.
        regions, prompts: needed regions and their prompts, of ``pixels-needed``.
        headers: more headers of the answer.
    """

    def __init__(
        self,
        name: ProblemName,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        regions: Sequence[NeededRegion] = (),
        prompts: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.name: ProblemName = name
        self.detail = detail
        self.errors = list(errors)
        self.regions = list(regions)
        self.prompts = list(prompts)
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """HTTP status of the problem."""
        return STATUS_OF[self.name]


def make_busy_problem(detail: str, *, retry_after_s: int = 1) -> ProblemError:
    """Make the problem of a server that is busy or stopping."""
    return ProblemError("busy", detail, headers={"Retry-After": str(retry_after_s)})


def make_problem(exc: WsiSamError) -> ProblemError:
    """Translate an error of this package into a problem for the client."""
    if isinstance(exc, ProblemError):
        return exc
    if isinstance(exc, PixelSizeError):
        return ProblemError("no-pixel-size", str(exc))
    if isinstance(exc, SlideError):
        return ProblemError("slide-unreadable", str(exc))
    if isinstance(exc, OptionError):
        field = _FIELD_OF.get(exc.option, exc.option)
        error = FieldError(field=field, message=exc.problem)
        return ProblemError("invalid", f"{field}: {exc.problem}", errors=[error])
    if isinstance(exc, PromptError):
        return ProblemError("invalid", str(exc))
    return ProblemError("failed", str(exc))


def make_invalid_problem(field: str, sentence: str) -> ProblemError:
    """Make the problem for a field, with a sentence that says how to fix it."""
    return ProblemError("invalid", sentence, errors=[FieldError(field=field, message=sentence)])


def document(problem: ProblemError, request_id: str) -> dict[str, Any]:
    """Make the JSON document of the problem."""
    return Problem(
        type=PROBLEM_PREFIX + problem.name,
        title=problem.name.replace("-", " ").capitalize(),
        status=problem.status,
        detail=problem.detail,
        instance=f"urn:uuid:{request_id}",
        errors=problem.errors or None,
        regions=problem.regions or None,
        prompts=problem.prompts or None,
    ).model_dump(exclude_none=True)
