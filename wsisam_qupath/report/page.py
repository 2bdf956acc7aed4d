"""The report as an HTML page: one file with all its pictures, which loads nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..errors import escape
from .outcome import ImageOutcome, PromptRow
from .overlay import Rgb
from .progress import duration
from .tables import ReportHeader, Row, make_row
from .thumbnails import OpenSlideOf, Thumbnail, color_of, draw_thumbnails

PICTURES_MAX = 2000
"""Largest number of pictures: about 25 MB, which browsers open quickly."""

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
        order: its place in the project.
        values: see :func:`.make_row`.
        state, reason: in words.
        rgb: of its class.
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


def render_page(
    outcomes: Sequence[ImageOutcome],
    about: ReportHeader,
    open_slide_of: OpenSlideOf,
    *,
    pictures_max: int = PICTURES_MAX,
) -> str:
    """Render the page as HTML.

    What can be looked at comes as cards, the doubtful first; other prompts are rows of a table.

    Args:
        open_slide_of: opens the slide of an image.
        pictures_max: so many cards have a picture. The page says how many have none.
    """
    places = [(image, row) for image in outcomes for row in image.rows]
    entries = [_entry(order, image, row) for order, (image, row) in enumerate(places)]
    in_order = [entry for entry in entries if entry.is_card]
    cards = sorted(in_order, key=lambda card: card.certainty)
    thumbnails = _thumbnails(cards[:pictures_max], open_slide_of)
    return _fill_template(
        about=about,
        outcomes=outcomes,
        failed=[image for image in outcomes if image.state == "failed"],
        noted=[image for image in outcomes if image.state != "failed" and image.reason],
        counts=_count_states(entry.state for entry in entries),
        cards=[(card, thumbnails.get(card.order)) for card in cards],
        images={card.image.id: card.image.name for card in in_order},
        classes=sorted({str(card.values["class"] or "") for card in cards}),
        states=sorted({card.state for card in cards}),
        unpictured=len(cards) - len(thumbnails),
        troubles=_troubles(in_order, thumbnails),
        others=[entry for entry in entries if not entry.is_card],
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


def _thumbnails(cards: Iterable[_Entry], open_slide_of: OpenSlideOf) -> dict[int, Thumbnail]:
    """Draw pictures in the order of the cards. Each slide is opened once, one at a time."""
    found: dict[int, Thumbnail] = {}
    in_order = sorted(cards, key=lambda card: card.order)
    for _, group in groupby(in_order, key=lambda card: card.image.id):
        some = list(group)
        made = draw_thumbnails(some[0].image, [card.row for card in some], open_slide_of)
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
    from jinja2 import Environment, PackageLoader, StrictUndefined  # 0.1 s

    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "one_line": _make_one_line,
        "data_uri": _data_uri,
        "csp_hash": _csp_hash,
        "duration": duration,
        "area": _area,
    }
    return environment.get_template("report.html.j2").render(content)


def _make_one_line(text: object, longest: int = 200) -> str:
    return escape(str(text), longest)


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _csp_hash(script: str) -> str:
    """Content security policy of the page: only its own script runs, whatever names contain."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _area(um2: float) -> str:
    return f"{um2:,.0f} µm²" if um2 >= 100 else f"{um2:.1f} µm²"
