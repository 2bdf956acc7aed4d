from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box

import wsisam_qupath.report.page as page_module
from fixtures.models import tissue_rgb
from fixtures.outcomes import (
    ABOUT,
    HOSTILE,
    RED,
    empty,
    image_of,
    outlined,
    page_of,
    skipped,
    words,
)
from wsisam_qupath.errors import OutputError
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts import PathClass, Prompt
from wsisam_qupath.report.outcome import ImageOutcome, PromptRow
from wsisam_qupath.report.thumbnails import draw_thumbnails
from wsisam_qupath.report.writing import write_report
from wsisam_qupath.slide.pyramid import write_pyramid


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


def test_a_large_report_has_pages_the_doubtful_first_and_every_card_has_a_picture(
    grey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "CARDS_MAX", 2)
    rows = [outlined(str(number), predicted_iou=number / 10) for number in range(5)]
    drawn: list[None] = []
    stale, kept = tmp_path / "report-4.html", tmp_path / "report-6.html"
    stale.write_text(page_module.GENERATOR, "utf-8")
    kept.write_text("mine", "utf-8")

    write_report(
        tmp_path / "report.html",
        [image_of(grey, *rows)],
        ABOUT,
        on_drawn=lambda: drawn.append(None),
    )

    names = ["report.html", "report-2.html", "report-3.html"]
    texts = [(tmp_path / name).read_text("utf-8") for name in names]
    assert [text.count('class="card"') for text in texts] == [2, 2, 1]
    assert [text.count("data:image/jpeg") for text in texts] == [2, 2, 1]
    assert len(drawn) == 5
    for number, text in enumerate(texts, start=1):
        assert f"Page {number} of 3" in text
        assert "<b>5</b> outlined" in text
        others = [name for name in names if name != names[number - 1]]
        assert all(f'<a href="{name}">' in text for name in others)
    assert "results 3 to 4" in texts[1]
    assert not stale.exists()
    assert kept.read_text("utf-8") == "mine"


def test_a_page_replaces_no_file_of_somebody_else(
    grey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "CARDS_MAX", 2)
    mine = tmp_path / "report-2.html"
    mine.write_text("mine", "utf-8")

    with pytest.raises(OutputError, match="is no page of a report"):
        write_report(tmp_path / "report.html", [image_of(grey, *map(outlined, "abc"))], ABOUT)

    assert mine.read_text("utf-8") == "mine"
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
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
