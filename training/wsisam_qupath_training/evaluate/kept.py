"""Results of an evaluation so far, kept image by image so that a stopped one continues.

It lies in the cache, in a file for each combination of models and settings, and goes when the
evaluation is finished.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

import shapely

from wsisam_qupath.errors import OutputError
from wsisam_qupath.files import cache_folder, hold_alone
from wsisam_qupath.files.checked_lines import make_line, parse_line, write_all
from wsisam_qupath.files.formats import UNFINISHED_EVALUATION
from wsisam_qupath.files.ordinary import open_checked
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.slide import SlideReference

from ..sampling.clicker import Click
from .choosing import SelectedObjects
from .noc import ClickRun
from .outline_fit import Fit
from .protocol import ObjectKey
from .results import ClickScore, EvaluationResults, Score


class KeptResults:
    """Results by image, in a file that grows line by line."""

    def __init__(self, file: io.FileIO) -> None:
        """Use :func:`open_kept`."""
        self._file = file
        self._found = self._read_earlier()

    def find(self, key: str) -> EvaluationResults | None:
        """Find the kept results of an image, if there are any."""
        content = self._found.get(key)
        return None if content is None else _decode(content)

    def add(self, key: str, results: EvaluationResults) -> None:
        """Hand the results of an image to the operating system: no kill loses them from then on.

        Raises:
            OutputError: the disk is full, or gone.
        """
        self._file.seek(0, io.SEEK_END)
        try:
            write_all(self._file, make_line({"key": key, **_encode(results)}))
        except OSError as exc:
            raise _make_unwritable_error(exc) from exc

    def _read_earlier(self) -> dict[str, dict[str, Any]]:
        lines = io.BytesIO(self._file.read())
        first = lines.readline()
        header = parse_line(first)
        if header is None:  # a new file, or one that a kill cut off at once
            self._file.seek(0)
            self._file.truncate()
            write_all(self._file, make_line(UNFINISHED_EVALUATION.stated))
            return {}
        UNFINISHED_EVALUATION.check(self._file.name, header)
        found, end = {}, len(first)
        for line in lines:
            content = parse_line(line)
            if content is None:  # a kill or a full disk cut it off
                break
            found[content.pop("key")] = content
            end += len(line)
        self._file.truncate(end)
        return found


@contextmanager
def open_kept(about: Mapping[str, object], *, resume: bool) -> Iterator[KeptResults]:
    """Open the kept results of an evaluation; the file is removed when the body succeeds.

    Args:
        about: JSON of everything that the results of all images depend on.
        resume: whether to use what an earlier run kept.

    Raises:
        OutputError: it cannot be written, or another process is measuring the same.
    """
    folder = cache_folder() / "evaluations"
    path = folder / f"{_digest(about)}.part"
    busy = "Another program is measuring these models on these data right now: wait for it."
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold_alone(path.with_suffix(".lock"), busy))
            if not resume:
                path.unlink(missing_ok=True)
            handle = open_checked(path, os.O_RDWR | os.O_CREAT)
            kept = KeptResults(held.enter_context(io.FileIO(handle, "r+")))
        except OSError as exc:
            raise _make_unwritable_error(exc) from exc
        yield kept
        held.close()
        path.unlink(missing_ok=True)


def make_key(chosen: SelectedObjects, boxes: Iterable[Box] | None) -> str:
    """Compute a key of everything that an image's results depend on: pixels, outlines, questions.

    Args:
        boxes: of another model, on this image.
    """
    image = chosen.image
    return _digest(
        {
            "image": [image.dataset, image.name, image.group, *_describe_slide(image.slide)],
            "truths": [
                [truth.id, truth.class_name, shapely.to_wkb(truth.l0_outline, hex=True)]
                for truth in image.truths
            ],
            "asked": [truth.id for truth in chosen.truths],
            "complete": shapely.to_wkb(image.l0_complete, hex=True),
            "boxes": None if boxes is None else [asdict(box) for box in boxes],
        }
    )


def _describe_slide(slide: SlideReference) -> list[object]:
    try:
        status = os.stat(slide.location)  # noqa: PTH116 - Path's own raises where it is too long
    except OSError:
        return [str(slide)]
    return [str(slide), status.st_size, status.st_mtime_ns]


def _digest(about: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def _encode(results: EvaluationResults) -> dict[str, object]:
    """Encode results as JSON, without pictures."""
    return {
        "scores": [
            {**asdict(one), "predicted_iou": _spell(one.predicted_iou)} for one in results.scores
        ],
        "clicks": [
            {
                "object_key": asdict(one.object_key),
                "model": one.model,
                "clicks": [[c.column, c.row, c.is_positive] for c in one.run.clicks],
                "ious": one.run.ious,
                "predicted_ious": list(map(_spell, one.run.predicted_ious)),
                "seconds": one.run.seconds,
            }
            for one in results.clicks
        ],
        "encode_s": results.encode_s,
        "decode_s": results.decode_s,
        "skipped": [[one.id, one.reason] for one in results.skipped],
        "spare_boxes": results.spare_boxes,
    }


def _decode(content: Mapping[str, Any]) -> EvaluationResults:
    results = EvaluationResults(
        [_decode_score(one) for one in content["scores"]],
        [_decode_clicks(one) for one in content["clicks"]],
        skipped=[Skipped(*one) for one in content["skipped"]],
        spare_boxes=content["spare_boxes"],
    )
    results.encode_s |= content["encode_s"]
    results.decode_s |= content["decode_s"]
    return results


def _decode_score(score: Mapping[str, Any]) -> Score:
    best, estimate = score["best_fit"], score["predicted_iou"]
    return Score(
        ObjectKey(**score["object_key"]),
        score["model"],
        score["label"],
        Fit(**score["fit"]),
        None if best is None else Fit(**best),
        None if estimate is None else float(estimate),
    )


def _decode_clicks(score: Mapping[str, Any]) -> ClickScore:
    run = ClickRun(
        tuple(Click(*one) for one in score["clicks"]),
        tuple(score["ious"]),
        tuple(map(float, score["predicted_ious"])),
        tuple(score["seconds"]),
        {},
    )
    return ClickScore(ObjectKey(**score["object_key"]), score["model"], run)


def _spell(number: float | None) -> float | str | None:
    """Spell a number that JSON lacks, such as NaN, which a foreign model may answer."""
    return number if number is None or math.isfinite(number) else str(number)


def _make_unwritable_error(exc: OSError) -> OutputError:
    return OutputError(
        f"What is measured cannot be kept in {cache_folder()} ({exc.strerror or exc}). Free space "
        "there and allow writing, and give the same command again: what was kept is used."
    )
