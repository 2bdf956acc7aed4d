"""What is kept of an image of a batch where nobody wants a row per prompt."""

from __future__ import annotations

from dataclasses import replace

from fixtures.outcomes import TUMOUR, empty, image_of, outlined, skipped
from wsisam_qupath.report.display import outdated_notice, summarize_outcome


def test_counted_rows_are_told_as_before_and_hold_no_outline() -> None:
    outdated = replace(outlined("old"), state="answered", is_outdated=True)
    image = image_of(None, outlined("a"), outlined("b"), outdated, empty(), skipped())

    counted = image.count_rows()

    assert [row.state for row in counted.rows] == ["skipped"]
    assert summarize_outcome(counted) == summarize_outcome(image)
    assert summarize_outcome(image) == "2 outlined, 1 empty, 1 answered before, 1 skipped"
    assert outdated_notice([counted]) == outdated_notice([image]) != ""
    assert replace(counted, rows=image.rows, counted={}, outdated_counted=0) == image


def test_the_classes_of_an_image_are_those_of_its_outlines() -> None:
    image = image_of(None, outlined("a"), empty(), outlined("b", path_class=None))

    assert image.list_classes() == {TUMOUR.name: TUMOUR.color}
