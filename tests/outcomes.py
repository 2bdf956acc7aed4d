"""How batches ended, made by hand, and the reports of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path

from shapely.geometry import Polygon, box

from wsisam_qupath.batch.outcome import ImageOutcome, PromptRow
from wsisam_qupath.batch.report import ReportHeader
from wsisam_qupath.batch.report_page import render_page
from wsisam_qupath.batch.thumbnails import open_again
from wsisam_qupath.geojson import to_feature
from wsisam_qupath.geometry import Box, Mpp
from wsisam_qupath.prompts import PathClass, Plane, Prompt
from wsisam_qupath.results import Provenance, Result

GREY, YELLOW, RED, BLUE = (128, 128, 128), (255, 214, 10), (200, 0, 0), (10, 132, 255)
POSITIVE, NEGATIVE = (48, 209, 88), (255, 69, 58)
TUMOUR = PathClass("Tumour", RED)
PROVENANCE = Provenance("base", "0" * 64, None, None, 1.0, None, "0")
ABOUT = ReportHeader(
    project="Glands",
    version="1.2.3",
    base="lite-medsam",
    adapter=None,
    device="cpu",
    backend="openvino",
    options={"simplify, µm": 0.25, "only": None},
    started=datetime(2026, 11, 21, 14, 30, tzinfo=timezone(timedelta(hours=1))),
    seconds=83.4,
)
HOSTILE = "<script>alert(1)</script>{{ 7 * 7 }}\"'><img src=x onerror=alert(1)>"


def outlined(
    prompt_id: str = "p",
    l0_box: Box = Box(100, 100, 300, 300),  # noqa: B008 - frozen
    outline: Polygon | None = None,
    *,
    path_class: PathClass | None = TUMOUR,
    predicted_iou: float = 0.9,
    plane: Plane = Plane(),  # noqa: B008 - frozen
) -> PromptRow:
    """A prompt with the outline that the program would have written for it."""
    prompt = Prompt(prompt_id, l0_box=l0_box, path_class=path_class, plane=plane)
    outline = outline or box(120, 120, 280, 280)
    result = Result(
        prompt, f"result of {prompt_id}", outline, predicted_iou, 0.8, 1234.56789, PROVENANCE
    )
    feature = to_feature(result, "detection")
    return PromptRow(prompt_id, "outlined", prompt=prompt, feature=feature)


def empty(prompt_id: str = "empty") -> PromptRow:
    prompt = Prompt(prompt_id, l0_box=Box(10, 10, 90, 90), path_class=TUMOUR)
    return PromptRow(prompt_id, "empty", "the model sees no object there", prompt)


def skipped(reason: str = "a line encloses no area: draw a rectangle") -> PromptRow:
    return PromptRow("a line", "skipped", reason)


def image_of(
    slide: Path | None, *rows: PromptRow, name: str = "grey", id: str = "1"
) -> ImageOutcome:
    return ImageOutcome(id, name, "done", rows=rows, slide=slide, mpp=Mpp(0.5, 0.5), seconds=1.5)


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""

    def has(self, name: str) -> bool:
        return name in self.attributes.get("class", "").split()


@dataclass
class Page(HTMLParser):
    """What a browser would make of a page: its elements with all text in them, in order."""

    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in ("meta", "img", "input"):
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag
        self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def close(self) -> None:
        super().close()
        assert not self._open

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]

    @property
    def cards(self) -> list[Element]:
        return [element for element in self.all("li") if element.has("card")]

    @property
    def pictures(self) -> list[Element]:
        return self.all("img")

    @property
    def rows(self) -> list[str]:
        """Rows of the tables, on one line each."""
        return [words(row) for row in self.all("tr")]

    @property
    def text(self) -> str:
        return words(self.all("body")[0])


def words(element: Element) -> str:
    """On one line."""
    return " ".join(element.text.split())


def read_page(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    return page


def page_of(*outcomes: ImageOutcome) -> Page:
    return read_page(render_page(outcomes, ABOUT, open_again))
