"""Draw prompts, truth and every model's answer side by side."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import shapely
from PIL import Image, ImageDraw, ImageFont

from wsisam_qupath.errors import SlideError
from wsisam_qupath.files import write_atomically
from wsisam_qupath.geometry import PatchPair
from wsisam_qupath.report.overlay import Rgb, Sketch
from wsisam_qupath.slide import Slide

from ..dataset import AnnotatedImage
from .protocol import LABELS, ObjectKey
from .results import PICTURED_CLICKS, Picture

PANEL_PX = 320
_HEAD_PX = 18
_TRUTH_RGB: Rgb = (48, 209, 88)
_ANSWER_RGB: Rgb = (10, 132, 255)
_ROWS = (*LABELS, *(f"click {number}" for number in PICTURED_CLICKS))


def write_figures(
    folder: Path,
    pictures: Sequence[Picture],
    images: Sequence[AnnotatedImage],
    models: Sequence[str],
    count: int,
) -> tuple[Path, ...]:
    """Write one PNG per object: a row per prompt, with the truth and each model's answer.

    Half of the objects are those that the last model answered worst, the others are spread evenly
    over the rest.

    Args:
        count: largest number of objects to draw.

    Raises:
        OutputError: the folder cannot be written.
    """
    by_subject: dict[ObjectKey, list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_subject[picture.object_key].append(picture)
    chosen = _choose_objects(by_subject, models[-1], count)
    own = {(image.dataset, image.name): image for image in images}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, object_key in enumerate(chosen, 1):
        path = folder / f"{number:02d}-{_file_name(object_key)}.png"
        try:
            with own[object_key.dataset, object_key.field].slide.open() as slide:
                sheet = draw_sheet(slide, by_subject[object_key], models)
        except SlideError:  # it was readable a moment ago; the numbers stand without its picture
            continue
        encoded = io.BytesIO()
        sheet.save(encoded, format="PNG")
        write_atomically(path, encoded.getvalue())
        written.append(path)
    return tuple(written)


def _choose_objects(
    by_subject: Mapping[ObjectKey, Sequence[Picture]], model: str, count: int
) -> list[ObjectKey]:
    def mean_dice(object_key: ObjectKey) -> float:
        own = [p.dice for p in by_subject[object_key] if p.model == model]
        return fmean(own) if own else 0.0

    ordered = sorted(by_subject, key=mean_dice)
    worst = ordered[: (count + 1) // 2]
    rest = ordered[len(worst) :]
    others = min(count - len(worst), len(rest))
    return worst + [rest[(2 * n + 1) * len(rest) // (2 * others)] for n in range(others)]


def draw_sheet(slide: Slide, pictures: Sequence[Picture], models: Sequence[str]) -> Image.Image:
    """Draw pictures of one object: a row for each prompt, first the truth, then each answer.

    Raises:
        SlideError: the pixels cannot be read.
    """
    rows = [label for label in _ROWS if any(p.label == label for p in pictures)]
    columns = 1 + len(models)
    sheet = Image.new("RGB", (columns * PANEL_PX, len(rows) * (PANEL_PX + _HEAD_PX)), "white")
    for row, label in enumerate(rows):
        own = {p.model: p for p in pictures if p.label == label}
        first = next(iter(own.values()))
        top = row * (PANEL_PX + _HEAD_PX)
        _place(sheet, 0, top, _panel(slide, first, is_truth=True), f"{label}: truth")
        for column, model in enumerate(models, 1):
            if model in own:
                told = f"{model}: Dice {100 * own[model].dice:.1f}"
                panel = _panel(slide, own[model], is_truth=False)
                _place(sheet, column * PANEL_PX, top, panel, told)
    return sheet


def _panel(slide: Slide, picture: Picture, *, is_truth: bool) -> Image.Image:
    l0_box = _find_frame(picture).hr_l0_box
    patch = Image.fromarray(slide.read(l0_box, PANEL_PX, PANEL_PX)).convert("RGBA")
    sketch = Sketch(patch, l0_box, line_px=2)
    if is_truth:
        sketch.trace(picture.l0_outline, _TRUTH_RGB)
    elif picture.l0_answer is not None:
        sketch.fill(picture.l0_answer, _ANSWER_RGB)
        sketch.trace(picture.l0_answer, _ANSWER_RGB)
    sketch.prompt(picture.prompt)
    return sketch.picture.convert("RGB")


def _find_frame(picture: Picture) -> PatchPair:
    """Find the finest pair, from the question's on, with an HR patch that holds the truth."""
    pair = picture.pair
    frame = shapely.box(*pair.hr_l0_box.corners().ravel())
    while not frame.covers(picture.l0_outline):
        pair = pair.coarser
        frame = shapely.box(*pair.hr_l0_box.corners().ravel())
    return pair


def _place(sheet: Image.Image, left: int, top: int, panel: Image.Image, text: str) -> None:
    sheet.paste(panel, (left, top + _HEAD_PX))
    pen = ImageDraw.Draw(sheet)
    pen.text((left + 4, top + 3), text, fill=(0, 0, 0), font=ImageFont.load_default())


def _file_name(object_key: ObjectKey) -> str:
    name = f"{object_key.dataset}-{object_key.field}-{object_key.object_id}"
    return re.sub(r"[^\w.-]+", "_", name)[:100]
