from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import Polygon, box

from formula import FormulaReader
from models import tissue_rgb
from wsisam_qupath.batch.outcome import ImageOutcome, PromptRow
from wsisam_qupath.batch.report import ReportHeader, check_report_path, write_report
from wsisam_qupath.batch.report_page import render_page
from wsisam_qupath.batch.report_rows import COLUMNS
from wsisam_qupath.batch.thumbnails import draw_thumbnails, open_again
from wsisam_qupath.errors import OptionError, OutputError
from wsisam_qupath.geojson import to_feature
from wsisam_qupath.geometry import Box, Mpp
from wsisam_qupath.prompts import PathClass, Plane, Prompt
from wsisam_qupath.pyramid import write_pyramid
from wsisam_qupath.results import Provenance, Result
from wsisam_qupath.slide import Slide, SlideReference
from wsisam_qupath.slide.slide import SlideIdentity

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


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of one colour, 400 x 400 px at 0.5 µm/px."""
    path = tmp_path_factory.mktemp("slides") / "grey.tif"
    write_pyramid(path, np.full((400, 400, 3), 128, dtype=np.uint8), mpp=0.5)
    return path


def image_of(
    slide: Path | None, *rows: PromptRow, name: str = "grey", id: str = "1"
) -> ImageOutcome:
    return ImageOutcome(id, name, "done", rows=rows, slide=slide, mpp=Mpp(0.5, 0.5), seconds=1.5)


# Pictures


def pixels_of(image: ImageOutcome) -> NDArray[np.uint8]:
    """The picture of the first row, HWC uint8 RGB."""
    [thumbnail, *_] = draw_thumbnails(image, image.rows)
    assert thumbnail.jpeg is not None
    with Image.open(io.BytesIO(thumbnail.jpeg)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (200, 200))
        return np.asarray(picture)


def assert_colour(
    pixels: NDArray[np.uint8], x: float, y: float, rgb: tuple[int, int, int], atol: int = 40
) -> None:
    """Whether it is at a point, or at a pixel beside it: lines are thin, and JPEG smears them."""
    column, row = int(x), int(y)
    near = pixels[row - 1 : row + 2, column - 1 : column + 2].astype(int)
    assert np.abs(near - rgb).max(axis=2).min() <= atol


def test_the_outline_has_its_class_colour_and_the_prompt_is_yellow(grey: Path) -> None:
    pixels = pixels_of(image_of(grey, outlined()))

    # 320 px of level 0, from 40 to 360, on 200 px: the prompt and 30 % on each side.
    for far in (50, 150):
        assert_colour(pixels, far, 100, RED)
        assert_colour(pixels, 100, far, RED)
    for edge in (37.5, 162.5):
        assert_colour(pixels, edge, 100, YELLOW, atol=70)
        assert_colour(pixels, 100, edge, YELLOW, atol=70)
    for x, y in ((10, 10), (100, 100), (190, 190), (100, 25)):
        assert_colour(pixels, x, y, GREY, atol=5)


def test_holes_are_traced_and_an_outline_without_class_is_blue(grey: Path) -> None:
    ring = box(120, 120, 280, 280).difference(box(160, 160, 240, 240))

    pixels = pixels_of(image_of(grey, outlined(outline=ring, path_class=None)))

    assert_colour(pixels, 50, 100, BLUE)
    assert_colour(pixels, 75, 100, BLUE)
    assert_colour(pixels, 100, 100, GREY, atol=5)


def test_points_are_green_and_red(grey: Path) -> None:
    clicked = Prompt("p", l0_positives=((150, 200), (250, 200)), l0_negatives=((200, 230),))

    pixels = pixels_of(image_of(grey, PromptRow("p", "empty", prompt=clicked)))

    # 160 px of level 0, from 120 to 280.
    assert_colour(pixels, 37.5, 100, POSITIVE)
    assert_colour(pixels, 162.5, 100, POSITIVE)
    assert_colour(pixels, 100, 137.5, NEGATIVE)


def test_small_objects_are_shown_with_twenty_micrometres_of_tissue(grey: Path) -> None:
    nucleus = outlined("nucleus", Box(195, 195, 205, 205), box(197, 197, 203, 203))

    pixels = pixels_of(image_of(grey, nucleus))

    # 40 px of level 0, from 180 to 220.
    assert_colour(pixels, 85, 100, RED)
    assert_colour(pixels, 60, 100, GREY, atol=5)


def test_beyond_the_slide_all_is_white(grey: Path) -> None:
    edge = outlined("edge", Box(0, 0, 200, 200), box(20, 20, 180, 180))

    pixels = pixels_of(image_of(grey, edge))

    assert_colour(pixels, 10, 10, (255, 255, 255), atol=5)
    assert_colour(pixels, 100, 100, GREY, atol=5)


def test_an_outline_that_outgrew_its_prompt_is_seen_whole(grey: Path) -> None:
    grown = outlined("p", Box(190, 190, 210, 210), box(100, 100, 300, 300))

    pixels = pixels_of(image_of(grey, grown))

    assert_colour(pixels, 37.5, 100, RED)
    assert_colour(pixels, 162.5, 100, RED)


def test_a_slide_that_is_gone_gives_no_picture_but_the_cure(tmp_path: Path) -> None:
    [thumbnail] = draw_thumbnails(image_of(tmp_path / "gone.svs", outlined()), [outlined()])

    assert thumbnail.jpeg is None
    assert "gone.svs does not exist. Check where the slide is now." in thumbnail.trouble


def test_without_a_reader_of_ours_there_is_no_picture(grey: Path) -> None:
    in_a_stack = outlined(plane=Plane(z=2))
    thumbnails = [
        *draw_thumbnails(image_of(None, outlined()), [outlined()]),
        *draw_thumbnails(image_of(grey, in_a_stack), [in_a_stack]),
    ]

    trouble = "No reader of this program opens its slide: look at it in QuPath."
    assert thumbnails == [(None, trouble)] * 2


def formula_slide(width: int = 400) -> tuple[Slide, FormulaReader]:
    reader = FormulaReader(width, 400)
    slide = Slide(
        reader,
        mpp=Mpp(0.5, 0.5),
        reference=SlideReference("formula"),
        identity=SlideIdentity("formula", 0, 0),
    )
    return slide, reader


def test_slides_are_opened_by_the_caller_plane_by_plane_one_at_a_time() -> None:
    asked: list[tuple[str, int]] = []
    readers: list[FormulaReader] = []

    def open_slide_of(image: ImageOutcome, plane: Plane) -> Slide:
        assert all(reader.is_closed for reader in readers)
        slide, reader = formula_slide()
        asked.append((image.name, plane.z))
        readers.append(reader)
        return slide

    stack = [outlined("a", plane=Plane(z=3)), outlined("b"), outlined("c", plane=Plane(z=3))]
    images = [image_of(None, *stack, name="stack"), image_of(None, outlined(), name="flat", id="2")]

    page = read_page(render_page(images, ABOUT, open_slide_of))

    assert asked == [("stack", 3), ("stack", 0), ("flat", 0)]
    assert all(reader.is_closed for reader in readers)
    assert len(page.pictures) == 4


# Which file


@pytest.mark.parametrize("name", ["report.pdf", "report", "html", "report.html.gz"])
def test_an_unknown_kind_of_report_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"is no kind of report: end the name in \.html"):
        check_report_path(tmp_path / name)
    with pytest.raises(OptionError, match=r"is no kind of report"):
        write_report(tmp_path / name, [], ABOUT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["report.html", "report.CSV", "größe 1.json"])
def test_known_kinds_are_taken_and_checking_touches_nothing(tmp_path: Path, name: str) -> None:
    check_report_path(tmp_path / name)
    assert list(tmp_path.iterdir()) == []

    write_report(tmp_path / name, [], ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"There is no folder"):
        check_report_path(tmp_path / "missing" / "report.html")


# JSON


def written_json(folder: Path, outcomes: Sequence[ImageOutcome]) -> dict[str, object]:
    path = folder / "report.json"
    write_report(path, outcomes, ABOUT)
    report = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(report, dict)
    return report


@pytest.fixture
def report(tmp_path: Path) -> dict[str, object]:
    """JSON of an image with two prompts, and of one that failed."""
    done = ImageOutcome(
        "7",
        "ä.svs",
        "done",
        rows=(outlined("box"), skipped()),
        slide=tmp_path / "ä.svs",
        mpp=Mpp(0.5, 0.25),
        seconds=1.23456,
        backup=tmp_path / "data.qpdata.old",
    )
    failed = ImageOutcome("8", HOSTILE, "failed", "It is damaged. Restore the backup.")
    return written_json(tmp_path, [done, failed])


def test_json_says_what_it_is_and_counts_images_and_prompts(report: dict[str, object]) -> None:
    assert {key: report[key] for key in report if key not in ("about", "images", "rows")} == {
        "format": "wsisam-qupath batch report",
        "version": 1,
        "counts": {
            "images": {"done": 1, "failed": 1},
            "prompts": {"outlined": 1, "skipped": 1},
        },
    }


def test_json_says_how_the_batch_was_run(report: dict[str, object]) -> None:
    assert report["about"] == {
        "project": "Glands",
        "version": "1.2.3",
        "base": "lite-medsam",
        "adapter": None,
        "device": "cpu",
        "backend": "openvino",
        "options": {"simplify, µm": 0.25, "only": None},
        "started": "2026-11-21T14:30:00+01:00",
        "seconds": 83.4,
    }


def test_json_says_of_each_image_how_it_ended(report: dict[str, object], tmp_path: Path) -> None:
    assert report["images"] == [
        {
            "id": "7",
            "name": "ä.svs",
            "state": "done",
            "reason": None,
            "slide": str(tmp_path / "ä.svs"),
            "mpp": [0.5, 0.25],
            "seconds": 1.235,
            "backup": str(tmp_path / "data.qpdata.old"),
        },
        {
            "id": "8",
            "name": HOSTILE,
            "state": "failed",
            "reason": "It is damaged. Restore the backup.",
            "slide": None,
            "mpp": None,
            "seconds": 0.0,
            "backup": None,
        },
    ]


def test_json_has_a_row_for_each_prompt_and_for_each_image_without(
    report: dict[str, object], tmp_path: Path
) -> None:
    nothing = dict.fromkeys(COLUMNS)
    of_done = nothing | {
        "image": "ä.svs",
        "image_id": "7",
        "image_state": "done",
        "slide": str(tmp_path / "ä.svs"),
        "z": 0,
        "t": 0,
    }
    assert report["rows"] == [
        of_done
        | {
            "prompt_id": "box",
            "kind": "box",
            "class": "Tumour",
            "state": "outlined",
            "result_id": "result of box",
            "predicted_iou": 0.9,
            "stability_score": 0.8,
            "area_um2": 1234.5679,
            "x0_px": 100.0,
            "y0_px": 100.0,
            "x1_px": 300.0,
            "y1_px": 300.0,
        },
        of_done
        | {
            "prompt_id": "a line",
            "state": "skipped",
            "reason": "a line encloses no area: draw a rectangle",
        },
        nothing
        | {
            "image": HOSTILE,
            "image_id": "8",
            "image_state": "failed",
            "image_reason": "It is damaged. Restore the backup.",
        },
    ]


def test_measurements_that_are_no_numbers_are_null(tmp_path: Path) -> None:
    report = written_json(tmp_path, [image_of(None, outlined(predicted_iou=float("nan")))])

    assert isinstance(report["rows"], list)
    assert report["rows"][0]["predicted_iou"] is None
    assert report["rows"][0]["stability_score"] == 0.8


@pytest.mark.parametrize("suffix", ["json", "csv", "html"])
def test_names_that_no_encoding_takes_do_no_harm(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"report.{suffix}"

    write_report(path, [image_of(None, outlined(), name="half \ud800.svs")], ABOUT)

    assert "half " in path.read_text(encoding="utf-8")


# CSV


def written_csv(folder: Path, outcomes: Sequence[ImageOutcome]) -> list[dict[str, str]]:
    path = folder / "report.csv"
    write_report(path, outcomes, ABOUT)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfimage,")
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_for_each_prompt_and_for_each_image_without(tmp_path: Path) -> None:
    failed = ImageOutcome("8", "b", "failed", "It is damaged. Restore the backup.")
    idle = ImageOutcome("9", "c", "nothing to do")

    rows = written_csv(
        tmp_path, [image_of(None, outlined("p"), empty(), name="ä, µm"), failed, idle]
    )

    assert list(rows[0]) == list(COLUMNS)
    assert [(row["image"], row["prompt_id"], row["state"]) for row in rows] == [
        ("ä, µm", "p", "outlined"),
        ("ä, µm", "empty", "empty"),
        ("b", "", ""),
        ("c", "", ""),
    ]
    assert [row["image_state"] for row in rows] == ["done", "done", "failed", "nothing to do"]
    assert rows[0]["predicted_iou"] == "0.9"
    assert rows[1]["reason"] == "the model sees no object there"
    assert rows[2]["image_reason"] == "It is damaged. Restore the backup."


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("  =1", "'  =1"),
        ("＝1", "'＝1"),
        ("a;=1", "a;'=1"),
        ('"=1', '"=1'),
        ("a\r\n=1", "a��=1"),
        ("Tumour: T-cell+", "Tumour: T-cell+"),
    ],
)
def test_a_spreadsheet_runs_no_name_as_a_formula(tmp_path: Path, name: str, shown: str) -> None:
    [row] = written_csv(tmp_path, [image_of(None, outlined(name), name=name)])

    assert (row["image"], row["prompt_id"]) == (shown, shown)


def test_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    [row] = written_csv(tmp_path, [image_of(None, outlined("p", Box(-20, -5.5, 100, 100)))])

    assert (row["x0_px"], row["y0_px"]) == ("-20.0", "-5.5")


# The page


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


def test_the_doubtful_come_first_and_all_is_said_of_each(grey: Path) -> None:
    sure, doubtful = outlined("sure", predicted_iou=0.95), outlined("doubtful", predicted_iou=0.5)

    page = page_of(image_of(grey, sure, doubtful, empty(), name="ä.svs"))

    ious = [card.attributes["data-iou"] for card in page.cards]
    assert ious == ["-1.0", "0.5", "0.95"]
    assert words(page.cards[0]) == "Tumour ä.svs no object seen At 50, 50"
    assert words(page.cards[2]) == (
        "Tumour ä.svs Predicted IoU 0.95 Stability 0.80 Area 1,235 µm² At 200, 200"
    )
    assert all(card.attributes["style"] == "--class:rgb(200, 0, 0)" for card in page.cards)
    assert page.pictures[0].attributes["alt"] == "Tumour in ä.svs"


def test_pictures_are_in_the_page_and_are_those_of_their_cards(grey: Path) -> None:
    image = image_of(grey, outlined("a"), outlined("b", path_class=None, predicted_iou=0.1))

    page = page_of(image)

    found = [base64.b64decode(p.attributes["src"].partition(",")[2]) for p in page.pictures]
    drawn = [thumbnail.jpeg for thumbnail in draw_thumbnails(image, image.rows)]
    assert found == drawn[::-1]
    assert {p.attributes["loading"] for p in page.pictures} == {"lazy"}


def test_the_page_asks_nothing_of_any_network_and_runs_only_its_own_script(grey: Path) -> None:
    page = page_of(image_of(grey, outlined()))

    sources = [
        e.attributes[key] for e in page.elements for key in ("src", "href") if key in e.attributes
    ]
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    [script] = page.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    policies = [meta.attributes.get("content", "") for meta in page.all("meta")]
    assert f"script-src 'sha256-{digest}'" in " ".join(policies)
    assert "default-src 'none'" in " ".join(policies)
    assert not re.search(r"url\(|@import|https?:", " ".join(e.text for e in page.all("style")))


def test_counts_in_the_header_add_up(grey: Path) -> None:
    answered = PromptRow("old", "answered", prompt=Prompt("old", l0_box=Box(0, 0, 9, 9)))
    reviewed = PromptRow("mine", "reviewed")
    rows = (outlined("a"), outlined("b"), empty(), skipped(), answered, reviewed)
    failed = ImageOutcome("2", "lost", "failed", "Changed meanwhile. Run it again.", (outlined(),))

    page = page_of(image_of(grey, *rows), failed)

    [counts] = [element for element in page.all("ul") if element.has("counts")]
    assert words(counts) == (
        "2 images 1 failed 2 outlined 1 no object seen 1 answered before 1 reviewed 1 skipped "
        "1 not written without outline about this run"
    )


def test_failed_images_and_prompts_without_outline_come_with_reason_and_cure(grey: Path) -> None:
    failed = ImageOutcome("2", "lost.svs", "failed", "It is damaged. Restore it.", slide=grey)

    page = page_of(image_of(grey, outlined(), skipped(), PromptRow("mine", "reviewed")), failed)

    assert page.rows[1] == f"lost.svs It is damaged. Restore it. {grey}"
    assert "grey a line skipped a line encloses no area: draw a rectangle" in page.rows
    assert "grey mine reviewed a person took its outline over" in page.rows
    assert page.text.index("1 image failed") < page.text.index("1 result,")


def test_an_outline_of_an_image_that_failed_is_not_called_written(grey: Path) -> None:
    failed = ImageOutcome("2", "lost", "failed", "Run it again.", (outlined(),), slide=grey)

    page = page_of(failed)

    assert page.cards[0].attributes["data-state"] == "not written"
    assert "lost failed 1 not written 0 0 0 0.0 s" in page.rows


def test_an_answer_of_an_earlier_run_is_shown_where_it_is_known(grey: Path) -> None:
    row = outlined("old")
    known = PromptRow("old", "answered", prompt=row.prompt, feature=row.feature)

    page = page_of(image_of(grey, known))

    assert [card.attributes["data-state"] for card in page.cards] == ["answered before"]
    assert len(page.pictures) == 1


def test_hostile_names_are_shown_and_never_obeyed(grey: Path) -> None:
    named = PathClass(HOSTILE, RED)
    rows = (outlined(HOSTILE, path_class=named), PromptRow(HOSTILE, "skipped", HOSTILE))
    good = image_of(grey, *rows, name=HOSTILE, id=HOSTILE)
    failed = ImageOutcome("2", HOSTILE, "failed", HOSTILE)

    page = page_of(good, failed)

    assert len(page.all("script")) == 1
    assert len(page.pictures) == 1
    assert not [name for e in page.elements for name in e.attributes if name.startswith("on")]
    assert page.cards[0].attributes["data-image"] == HOSTILE
    assert page.cards[0].attributes["data-class"] == HOSTILE
    assert page.rows[1] == f"{HOSTILE} {HOSTILE}"
    assert HOSTILE in page.cards[0].text


def test_every_card_is_found_by_the_filters(grey: Path) -> None:
    rows = (outlined("a"), outlined("b", path_class=None), empty())

    page = page_of(image_of(grey, *rows), image_of(grey, outlined(), name="other", id="2"))

    offered = [option.attributes["value"] for option in page.all("option")]
    for key in ("image", "class", "state"):
        assert {"=" + card.attributes[f"data-{key}"] for card in page.cards} <= set(offered)


def test_a_slide_that_cannot_be_read_is_said_once_and_its_cards_stay(
    grey: Path, tmp_path: Path
) -> None:
    gone = image_of(tmp_path / "gone.svs", outlined("a"), outlined("b"), name="gone.svs")

    page = page_of(image_of(grey, outlined(), id="2"), gone)

    assert len(page.cards) == 3
    assert len(page.pictures) == 1
    assert page.text.count("does not exist. Check where the slide is now.") == 1
    assert page.text.count("The slide could not be read.") == 2


def test_beyond_the_limit_the_doubtful_have_pictures_and_the_page_says_so(grey: Path) -> None:
    rows = [outlined(str(n), predicted_iou=1 - n / 10) for n in range(5)]

    page = read_page(render_page([image_of(grey, *rows)], ABOUT, open_again, pictures_max=2))

    assert len(page.cards) == 5
    assert len(page.pictures) == 2
    assert "3 results have no picture: only the 2 most doubtful do" in page.text


def test_five_hundred_pictures_of_tissue_stay_below_eight_megabytes(tmp_path: Path) -> None:
    slide = tmp_path / "tissue.tif"
    write_pyramid(slide, tissue_rgb(), mpp=0.5)
    corners = np.random.default_rng(0).uniform(50, 300, size=(500, 2)).tolist()
    rows = [
        outlined(str(n), Box(x, y, x + 120, y + 120), box(x + 10, y + 10, x + 110, y + 110))
        for n, (x, y) in enumerate(corners)
    ]
    path = tmp_path / "report.html"

    write_report(path, [image_of(slide, *rows)], ABOUT)

    assert path.read_text(encoding="utf-8").count("data:image/jpeg;base64,") == 500
    assert path.stat().st_size < 8e6
