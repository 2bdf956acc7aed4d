"""The report as HTML pages: each file holds all its pictures, and loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from .outcome import ImageOutcome, PromptRow
from .overlay import Rgb
from .progress import duration
from .tables import ReportHeader, Row, make_row
from .templates import open_template
from .thumbnails import OpenSlideOf, Thumbnail, color_of, draw_thumbnails

CARDS_MAX = 1000
"""Largest number of cards on a page, so that browsers open it quickly."""

GENERATOR = '<meta name="generator" content="wsisam-qupath '
"""Begins a line of every page, near its top."""

ROWS_MAX = 5000
"""Largest number of prompts without a card on a page."""

_WORDS = {
    "outlined": "outlined",
    "empty": "no object seen",
    "answered": "answered before",
    "reviewed": "reviewed",
    "skipped": "skipped",
}
_NOT_WRITTEN = "not written"

_REASONS = {
    "answered": "an earlier run outlined it with the same model and options",
    "reviewed": "a person took its outline over",
}


@dataclass(frozen=True)
class _Entry:
    """The card of a prompt on the page.

    Attributes:
        order: place among all prompts, in the order of the project.
        values: the row as a table; see :func:`.make_row`.
        state, reason: state and reason in words.
        rgb: color of its class.
    """

    order: int
    image: ImageOutcome
    row: PromptRow
    values: Row
    state: str
    reason: str
    rgb: Rgb

    @property
    def is_card(self) -> bool:
        """Whether there is something to see: an outline, or a prompt without one."""
        seen_empty = self.row.state == "empty" and self.row.prompt is not None
        return self.row.feature is not None or seen_empty

    @property
    def center(self) -> str:
        """Position to go to in QuPath, level-0 px."""
        box = self.row.l0_bounds
        return "" if box is None else "{:,.0f}, {:,.0f}".format(*box.center)

    @property
    def certainty(self) -> float:
        """The predicted IoU; -1 or less if no object was found."""
        predicted = self.values["predicted_iou"]
        return float(predicted) if predicted is not None else -1.0


class Pages:
    """The report as pages of a bounded size, each of which can be opened alone.

    What can be looked at comes as cards, the doubtful first; other prompts are rows of a table.
    The counts in the header are those of the whole run on every page.

    Args:
        open_slide_of: opens the slide of an image.
        on_drawn: called after each picture.
    """

    def __init__(
        self,
        outcomes: Sequence[ImageOutcome],
        about: ReportHeader,
        open_slide_of: OpenSlideOf,
        on_drawn: Callable[[], object] = lambda: None,
    ) -> None:
        self._outcomes, self._about = outcomes, about
        self._open_slide_of, self._on_drawn = open_slide_of, on_drawn
        places = [(image, row) for image in outcomes for row in image.rows]
        entries = [_entry(order, image, row) for order, (image, row) in enumerate(places)]
        self._counts = _count_states(entry.state for entry in entries)
        self._cards = sorted((e for e in entries if e.is_card), key=lambda card: card.certainty)
        self._others = [entry for entry in entries if not entry.is_card]

    def __len__(self) -> int:
        with_cards = math.ceil(len(self._cards) / CARDS_MAX)
        return max(1, with_cards, math.ceil(len(self._others) / ROWS_MAX))

    def render(self, number: int, names: Sequence[str] = ("",)) -> str:
        """Render a page as HTML, and draw its pictures.

        Args:
            number: number of the page, from 1 on.
            names: names of the files of all pages, which each page links to.
        """
        first, first_row = (number - 1) * CARDS_MAX, (number - 1) * ROWS_MAX
        cards = self._cards[first : first + CARDS_MAX]
        in_order = sorted(cards, key=lambda card: card.order)
        thumbnails = _thumbnails(in_order, self._open_slide_of, self._on_drawn)
        return _fill_template(
            about=self._about,
            outcomes=self._outcomes,
            number=number,
            names=names,
            n_cards=len(self._cards),
            n_others=len(self._others),
            first=first + 1,
            failed=[image for image in self._outcomes if image.state == "failed"],
            noted=[one for one in self._outcomes if one.state != "failed" and one.reason],
            counts=self._counts,
            cards=[(card, thumbnails.get(card.order)) for card in cards],
            images={card.image.id: card.image.name for card in in_order},
            classes=sorted({str(card.values["class"] or "") for card in cards}),
            states=sorted({card.state for card in cards}),
            troubles=_troubles(in_order, thumbnails),
            others=self._others[first_row : first_row + ROWS_MAX],
        )


def _entry(order: int, image: ImageOutcome, row: PromptRow) -> _Entry:
    lost = image.state == "failed" and row.state == "outlined"
    return _Entry(
        order,
        image,
        row,
        values=make_row(image, row),
        state=_NOT_WRITTEN if lost else _WORDS[row.state],
        reason=row.reason or _REASONS.get(row.state, ""),
        rgb=color_of(row.path_class),
    )


def _count_states(states: Iterable[str]) -> dict[str, int]:
    counts = Counter(states)
    return {word: counts[word] for word in (*_WORDS.values(), _NOT_WRITTEN) if word in counts}


def _thumbnails(
    in_order: Iterable[_Entry], open_slide_of: OpenSlideOf, on_drawn: Callable[[], object]
) -> dict[int, Thumbnail]:
    """Draw pictures in the order of the cards. Each slide is opened once, one at a time."""
    found: dict[int, Thumbnail] = {}
    for _, group in groupby(in_order, key=lambda card: card.image.id):
        some = list(group)
        rows = [card.row for card in some]
        made = draw_thumbnails(some[0].image, rows, open_slide_of, on_drawn)
        found |= zip((card.order for card in some), made, strict=True)
    return found


def _troubles(
    cards: Iterable[_Entry], thumbnails: Mapping[int, Thumbnail]
) -> list[tuple[str, str]]:
    """List the images that lack pictures, and why; each once."""
    pairs = (
        (card.image.name, thumbnails[card.order].trouble)
        for card in cards
        if card.order in thumbnails and thumbnails[card.order].jpeg is None
    )
    return list(dict.fromkeys(pairs))


def _fill_template(**content: Any) -> str:
    template = open_template(
        __package__,
        "report.html.j2",
        data_uri=_data_uri,
        csp_hash=_csp_hash,
        duration=duration,
        area=_area,
    )
    return template.render(content)


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _csp_hash(script: str) -> str:
    """Hash the page's script for its Content-Security-Policy: only that script runs."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _area(um2: float) -> str:
    return f"{um2:,.0f} µm²" if um2 >= 100 else f"{um2:.1f} µm²"
