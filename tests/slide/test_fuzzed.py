"""Files on which ``scripts/fuzz.py`` once found a fault, by their seeds."""

import pytest

from fuzz import image_headers, tiff_tags


@pytest.mark.parametrize("seed", [521, 575, 717, 1564, 1602])
def test_tiff_files_with_wrong_tags_are_read_or_refused(seed: int) -> None:
    tiff_tags.run(seed)


def test_an_image_with_a_damaged_header_is_read_or_refused() -> None:
    image_headers.run(353)
