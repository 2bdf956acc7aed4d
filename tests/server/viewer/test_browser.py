"""The page in a real Chromium: with the mouse, with the keyboard alone, and as wide as a phone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fixtures.browser import PHONE_PX, Page, needs_chromium, shown_in_browser
from fixtures.command_line import features_of

pytestmark = [pytest.mark.slow, pytest.mark.walk, pytest.mark.browser, needs_chromium]

GLAND = (0.52, 0.02), (0.9, 0.56)
"""Corners of a rectangle around a gland of the tissue, shares of a square stage."""


@pytest.fixture
def slide_path(tmp_path: Path, tissue_path: Path) -> Path:
    path = tmp_path / "slides" / "tissue.tif"
    path.parent.mkdir()
    path.write_bytes(tissue_path.read_bytes())
    return path


@pytest.fixture
def page(slide_path: Path, tmp_path: Path) -> Iterator[Page]:
    with shown_in_browser(slide_path, tmp_path) as page:
        page.wait_until_ready()
        yield page
        assert page.complaints == []


def on_stage(page: Page, place: tuple[float, float]) -> tuple[float, float]:
    """A place of the tissue, which is square, on the stage, which is wider."""
    size = page.browser.find_element("id", "stage").size
    return 0.5 + (place[0] - 0.5) * size["height"] / size["width"], place[1]


def test_a_rectangle_and_a_click_are_outlined_undone_saved_and_there_after_a_reload(
    page: Page, slide_path: Path
) -> None:
    saved = slide_path.with_name("tissue.geojson")

    page.press("r")
    page.drag(*(on_stage(page, corner) for corner in GLAND))
    page.wait_for("Outlined")
    (of_rectangle,) = page.outlines
    page.press("i")
    page.click(*on_stage(page, (0.62, 0.12)))
    page.wait(lambda: page.outlines != [of_rectangle] and "Outlined" in page.status)
    page.press("z")

    assert page.outlines == [of_rectangle]

    page.press("s")
    page.wait_for("Saved 1 objects as tissue.geojson")
    before = page.rows
    page.browser.refresh()
    page.wait_for("1 objects of tissue.geojson")

    assert page.outlines == [of_rectangle]
    assert page.rows == before
    assert len(features_of(saved)) == 1

    page.press("n", "i")
    page.click(*on_stage(page, (0.25, 0.3)))
    page.wait(lambda: len(page.outlines) == 2 and "Outlined" in page.status)
    page.press("s")
    page.wait_for("Saved 2 objects")

    assert len(features_of(saved)) == 2


def test_the_keyboard_alone_outlines_names_finds_removes_and_saves(
    page: Page, slide_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    page.press("r", *[Keys.ARROW_UP] * 3, Keys.ENTER, *[Keys.ARROW_DOWN] * 4)
    page.press(*[Keys.ARROW_RIGHT] * 2, Keys.ENTER)
    page.wait_for("Outlined")
    page.press("c")
    page.browser.switch_to.active_element.send_keys("Tumor", Keys.TAB)

    assert page.rows[0].startswith("Tumor")

    page.press("c")
    page.browser.switch_to.active_element.send_keys("Stroma", Keys.TAB)

    assert page.rows[0].startswith("Stroma")

    page.press("z", "f")
    page.wait(lambda: "found. Remove" in page.status)

    assert all(row.startswith("Tumor") for row in page.rows)

    page.press("z")

    assert len(page.rows) == 1

    page.press("s")
    page.wait_for("Saved 1 objects")
    (feature,) = features_of(slide_path.with_name("tissue.geojson"))
    assert feature["properties"]["classification"] == {"name": "Tumor", "color": [200, 0, 0]}

    page.press(Keys.DELETE)

    assert page.rows == []


def test_the_keyboard_alone_clicks_scribbles_and_marks_what_does_not_belong(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    up, right, outside = Keys.ARROW_UP, Keys.ARROW_RIGHT, (Keys.SHIFT, Keys.ENTER, Keys.NULL)
    page.press("i", up, up, up, right, right, Keys.ENTER)
    page.wait_for("Outlined")
    (clicked,) = page.outlines
    page.press("o", Keys.ARROW_DOWN, Keys.ENTER)
    page.wait(lambda: page.outlines != [clicked] and "Outlined" in page.status)
    (without,) = page.outlines
    page.press("z", "i", *outside)  # outside at the cross, as with the tool for it
    page.wait(lambda: page.outlines == [without])

    page.press("n", "b", up, Keys.ENTER, up, Keys.ENTER, right, Keys.ENTER, Keys.ENTER)
    page.wait(lambda: len(page.outlines) == 2 and "Outlined" in page.status)

    assert without in page.outlines


def test_what_a_click_would_outline_is_shown_while_the_mouse_rests(page: Page) -> None:
    ghost = "return document.querySelector('#overlay .ghost').getAttribute('d')"
    place = on_stage(page, (0.7, 0.3))
    page.press("i")
    page.move(*place).perform()
    page.wait(lambda: page.run(ghost))
    shown = page.run(ghost)

    assert page.outlines == []

    page.click(*place)
    page.wait_for("Outlined")

    assert page.outlines == [shown]
    assert not page.run(ghost)

    page.browser.find_element("id", "preview").click()
    page.move(*on_stage(page, (0.25, 0.3))).perform()
    time.sleep(1)  # longer than a preview of a place that is encoded takes to begin

    assert not page.run(ghost)


def test_it_fits_a_phone(page: Page) -> None:
    page.become_a_phone()
    page.wait(lambda: page.run("return innerWidth") == PHONE_PX[0])

    assert page.run("return document.documentElement.scrollWidth") <= PHONE_PX[0]
    too_far = page.run(
        "return [...document.querySelectorAll('button, input, select, #stage')]"
        ".filter(e => e.offsetParent && e.getBoundingClientRect().right > innerWidth)"
        ".map(e => e.id || e.dataset.tool)"
    )
    assert too_far == []
    page.press("i")
    page.click(0.5, 0.5)
    page.wait_for("Outlined")
    page.browser.find_element("id", "remove").click()

    assert page.rows == []


def test_scribbles_and_lassos_mark_objects_and_what_does_not_belong_to_them(page: Page) -> None:
    page.press("b")
    page.draw([on_stage(page, place) for place in ((0.6, 0.1), (0.75, 0.15), (0.7, 0.3))])
    page.wait_for("Outlined")
    (scribbled,) = page.outlines
    page.draw([on_stage(page, place) for place in ((0.6, 0.7), (0.65, 0.75), (0.6, 0.8))], "shift")
    page.wait(lambda: page.outlines != [scribbled] and "Outlined" in page.status)

    assert len(page.outlines) == 1

    page.press("a")
    page.draw(
        [on_stage(page, place) for place in ((0.1, 0.1), (0.45, 0.1), (0.45, 0.45), (0.1, 0.45))]
    )
    page.wait(lambda: len(page.outlines) == 2 and "Outlined" in page.status)


def test_it_asks_before_objects_are_lost_and_leaves_what_others_wrote(
    slide_path: Path, tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    other = slide_path.with_name("with space.tif")
    other.write_bytes(slide_path.read_bytes())
    taken = slide_path.with_name("tissue.geojson")
    with shown_in_browser(slide_path.parent, tmp_path) as page:
        page.wait_until_ready()
        first = page.run("return document.getElementById('slide-name').textContent")
        page.press("i")
        page.click(*on_stage(page, (0.7, 0.3)))
        page.wait_for("Outlined")
        slides = page.browser.find_element("id", "slides")

        slides.send_keys(Keys.ARROW_DOWN)
        page.wait(lambda: page.run("return document.getElementById('ask').open"))
        page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)

        page.wait(lambda: page.run("return document.getElementById('slides').value") == first)
        assert len(page.outlines) == 1

        taken.write_text('{"type": "FeatureCollection", "features": []}', encoding="ascii")
        page.press("s")
        page.wait(lambda: page.run("return document.getElementById('ask').open"))
        page.browser.switch_to.active_element.send_keys(Keys.ENTER)
        page.wait_for("Saved 1 objects as tissue-2.geojson")

        assert "wsisam_view" not in taken.read_text("ascii")
        assert len(features_of(slide_path.with_name("tissue-2.geojson"))) == 1

        slides.send_keys(Keys.ARROW_DOWN)
        page.wait(lambda: other.name in page.browser.current_url.replace("%20", " "))
        page.wait_for("Draw a rectangle")

        assert page.outlines == []
        # Chromium notes the answer that the name is taken, as it does of every such status.
        assert all("409" in one for one in page.complaints)


def shows(page: Page, class_name: str) -> bool:
    return page.rows[0].startswith(class_name)


def test_without_its_server_the_page_hands_over_what_it_has(
    slide_path: Path, tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    downloads = tmp_path / "downloads"
    with shown_in_browser(slide_path, tmp_path) as page:
        page.wait_until_ready()
        page.allow_downloads(downloads)
        page.press("i")
        page.click(*on_stage(page, (0.7, 0.3)))
        page.wait_for("Outlined")
        name = page.browser.find_element("id", "class")
        for class_name in ("constructor", "Wrong*"):  # of the names that JavaScript has itself, one
            name.send_keys(Keys.CONTROL, "a", Keys.NULL, class_name, Keys.TAB)
            page.wait(partial(shows, page, class_name))
        page.press("f")
        page.wait_for("is not wanted: select another object")

        page.run("sessionStorage.setItem('wsisam-qupath-token', 'of another server')")
        page.press("s")
        page.wait_for("in this browser's downloads, as tissue.geojson")
        page.wait((downloads / "tissue.geojson").exists)

        (feature,) = features_of(downloads / "tissue.geojson")
        assert feature["properties"]["classification"]["name"] == "Wrong*"
        assert not slide_path.with_name("tissue.geojson").exists()
        # Chromium notes that the token was refused, as it does of every such status.
        assert all("401" in one for one in page.complaints)
