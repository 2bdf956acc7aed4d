"""Schema of requests to find objects. No I/O."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue

from ..options import MIN_SCORE
from .schemas import HAS_FEATURES, Options, Prompts, SlideAsOpen, Strict

_SOMETHING_TO_FIND: list[JsonValue] = [
    {
        "required": ["options"],
        "properties": {
            "options": {
                "required": ["object_size_um"],
                "properties": {"object_size_um": {"type": "number"}},
            }
        },
    },
    {
        "required": ["examples"],
        "properties": {"examples": HAS_FEATURES},
    },
]
"""Condition in the JSON schema, in addition to the types."""


class FindRequest(Strict):
    """Body of ``POST /v1/find``.

    Attributes:
        examples: one to ten objects; without any, all objects of about ``object_size_um`` are
            looked for. Areas of a class that ends in ``*`` are not wanted.
        negatives: more objects that are not wanted.
        known: outlines of objects that are there already; they are not found a second time.
        within: areas to look in; null is the whole slide. The id of the area that an object was
            found in is its ``parent``.
        min_score: lowest predicted IoU of what is found.
        adapter: which of the server's models answers; see ``/v1/segment``.
    """

    model_config = ConfigDict(json_schema_extra={"anyOf": _SOMETHING_TO_FIND})

    slide: SlideAsOpen
    examples: Prompts = Field(default_factory=list)
    negatives: Prompts = Field(default_factory=list)
    known: Prompts = Field(default_factory=list)
    within: Prompts | None = None
    min_score: Annotated[float, Field(ge=0, le=1)] = MIN_SCORE
    adapter: str | None = None
    options: Options = Field(default_factory=Options)
