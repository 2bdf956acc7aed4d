"""The one rule for files that outlive a run."""

from __future__ import annotations

import pytest

from wsisam_qupath.errors import FormatError
from wsisam_qupath.files import formats
from wsisam_qupath.files.formats import Format

LIST = Format("a list", 3, "list")
ALL = [one for one in vars(formats).values() if isinstance(one, Format)]


@pytest.mark.parametrize(
    ("content", "number"), [({}, 1), ({"list": 2}, 2), ({"list": 3, "x": 1}, 3)]
)
def test_an_older_format_is_known_and_none_is_the_first(
    content: dict[str, object], number: int
) -> None:
    assert LIST.check("a.json", content) == number


def test_a_newer_format_is_refused_with_a_sentence() -> None:
    with pytest.raises(FormatError) as caught:
        LIST.check("a.json", {"list": 4})

    assert str(caught.value) == (
        "a.json is a list in format 4, which a newer version of this program wrote; this one knows "
        "formats up to 3. Update wsisam-qupath. The file was left as it is."
    )


@pytest.mark.parametrize("number", [0, -1, True, "2", 2.0, None, [1]])
def test_what_is_no_number_is_damage(number: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        LIST.check("a.json", {"list": number})


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.what)
def test_what_is_written_can_be_read(one: Format) -> None:
    assert one.check("a.json", one.stated) == one.number
