"""What a batch did: one row a prompt, one line an image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ..geojson import Feature
from ..geometry import Mpp
from ..prompts import Prompt

PromptState: TypeAlias = Literal["outlined", "empty", "answered", "reviewed", "skipped"]
"""``outlined``: there is a new outline. ``empty``: the model sees nothing there. ``answered``: an
earlier run did it. ``reviewed``: a person took the outline over, so it is left alone. ``skipped``:
no prompt could be made of it."""

ImageState: TypeAlias = Literal["done", "nothing to do", "failed"]


@dataclass(frozen=True)
class PromptRow:
    """What became of one prompt.

    Attributes:
        prompt_id: QuPath's id of the annotation, where it has one of its own.
        reason: a few words for the user where there is no outline; else empty.
        prompt: None for what was skipped.
        feature: the outline as it was written; None where there is no new one.
    """

    prompt_id: str
    state: PromptState
    reason: str = ""
    prompt: Prompt | None = None
    feature: Feature | None = None


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one image.

    Attributes:
        id, name: of the project's entry.
        slide: the file that was read; None where no reader of ours opens it.
        mpp: of its level 0; None where it was never opened.
        reason: what is wrong and its cure; else empty.
        backup: the copy of ``data.qpdata`` from before; None where nothing was written.
    """

    id: str
    name: str
    state: ImageState
    reason: str = ""
    rows: tuple[PromptRow, ...] = ()
    slide: Path | None = None
    mpp: Mpp | None = None
    seconds: float = 0.0
    backup: Path | None = None

    def count(self, state: PromptState) -> int:
        """How many prompts ended like this."""
        return Counter(row.state for row in self.rows)[state]
