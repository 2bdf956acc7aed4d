from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from fixtures.outcomes import ABOUT, HOSTILE, empty, image_of, outlined, skipped
from wsisam_qupath.errors import OptionError, OutputError
from wsisam_qupath.geometry import Box, Mpp
from wsisam_qupath.report.outcome import ImageOutcome
from wsisam_qupath.report.tables import COLUMNS
from wsisam_qupath.report.writing import check_report_path, write_report


@pytest.mark.parametrize("name", ["report.pdf", "report", "html", "report.html.gz"])
def test_an_unknown_kind_of_report_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"is not a report: end the name in \.html"):
        check_report_path(tmp_path / name)
    with pytest.raises(OptionError, match=r"is not a report"):
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
