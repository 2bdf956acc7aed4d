import re

import pytest

from wsisam_qupath.errors import SlideError
from wsisam_qupath.slide.uri import path_from_location


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/home/a b/x.svs", "/home/a b/x.svs"),
        ("x.svs", "x.svs"),
        ("100%25.svs", "100%25.svs"),
        ("file:/home/x.svs", "/home/x.svs"),
        ("file:///home/a%20b/ü.svs", "/home/a b/ü.svs"),
        ("file:///home/a%20b/%C3%BC.svs", "/home/a b/ü.svs"),
        ("FILE://localhost/home/x.svs", "/home/x.svs"),
        ("file:/home/50%25%3F%23+1.svs", "/home/50%?#+1.svs"),
    ],
)
def test_posix_locations(location: str, path: str) -> None:
    assert str(path_from_location(location, windows=False)) == path


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (r"C:\x y.svs", r"C:\x y.svs"),
        ("C:/x.svs", r"C:\x.svs"),
        ("C://x.svs", r"C:\x.svs"),
        (r"\\server\share\x.svs", r"\\server\share\x.svs"),
        ("file:/C:/x/y.svs", r"C:\x\y.svs"),
        ("file:///C:/a%20b/%C3%BC.svs", r"C:\a b\ü.svs"),
        ("file://C:/x.svs", r"C:\x.svs"),
        ("file://localhost/C:/x.svs", r"C:\x.svs"),
        ("file://server/share/x%20y.svs", r"\\server\share\x y.svs"),
        ("file:////server/share/x.svs", r"\\server\share\x.svs"),
    ],
)
def test_windows_locations(location: str, path: str) -> None:
    assert str(path_from_location(location, windows=True)) == path


@pytest.mark.parametrize(
    ("location", "windows", "fix"),
    [
        ("", False, "Pass a path"),
        ("a\0b", False, "Pass a path"),
        ("file:/a%00b", False, "Pass a plain path"),
        ("file:x.svs", False, "Pass a plain path"),
        ("file://server", True, "Pass a plain path"),
        ("file:/a%FFb.svs", False, "Pass a plain path"),
        ("file:/x.ome.tif?series=1", False, "%3F"),
        ("file:/x#1.svs", False, "%23"),
        ("https://example.org/x.svs", False, "Download it"),
        ("s3://bucket/x.svs", True, "Download it"),
        ("file:/C:/x.svs", False, "Pass the path on this computer"),
        ("file://C:/x.svs", False, "Pass the path on this computer"),
        ("file:/home/x.svs", True, "Pass the path on this computer"),
        ("file://server/share/x.svs", False, "Mount the share"),
    ],
)
def test_a_location_that_is_no_file_here_names_the_cure(
    location: str, windows: bool, fix: str
) -> None:
    with pytest.raises(SlideError, match=re.escape(fix)):
        path_from_location(location, windows=windows)
