from __future__ import annotations

import json
import os
import time
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from project_files import (
    Json,
    altered,
    builder,
    calibration,
    contents,
    image,
    make_project,
    metadata,
)
from wsisam_qupath.errors import OptionError, ProjectError
from wsisam_qupath.geometry import Mpp
from wsisam_qupath.project.entries import ImageEntry
from wsisam_qupath.project.locations import locations, pure_path
from wsisam_qupath.project.reading import read_project

POSIX = pytest.mark.skipif(os.name == "nt", reason="paths of POSIX are not of this system")


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A file that is there; nothing of it is read."""
    path = tmp_path / "slides" / "a b ü.svs"
    path.parent.mkdir()
    path.touch()
    return path


def only_image(tmp_path: Path, entry: object) -> ImageEntry:
    (found,) = read_project(make_project(tmp_path / "project", [entry])).images
    return found


def refusal(path: Path) -> str:
    """Why a project is not read; what lies beside it stays as it is."""
    folder = path if path.is_dir() else path.parent
    before = contents(folder)
    with pytest.raises(ProjectError) as caught:
        read_project(path)
    assert contents(folder) == before
    return str(caught.value)


def test_an_image_that_was_saved_states_size_scale_and_planes(tmp_path: Path, slide: Path) -> None:
    stated = metadata(size_px=(4000, 3000), mpp=(0.25, 0.5), planes=(5, 2))
    path = make_project(tmp_path / "project", [image(7, slide, name="A", metadata=stated)])

    project = read_project(path)

    assert project.path == path
    assert project.version == "0.6.0"
    assert project.images == (
        ImageEntry(
            id="7",
            name="A",
            folder=tmp_path / "project" / "data" / "7",
            uri=slide.as_uri(),
            slide=slide,
            mpp=Mpp(0.25, 0.5),
            size_px=(4000, 3000),
            z_count=5,
            t_count=2,
        ),
    )


def test_an_image_that_was_only_added_states_its_slide(tmp_path: Path, slide: Path) -> None:
    found = only_image(tmp_path, image(1, slide))

    assert found.slide == slide
    assert (found.mpp, found.size_px, found.z_count, found.t_count) == (None, None, 1, 1)
    assert found.trouble is None


def test_the_folder_stands_for_its_project(tmp_path: Path) -> None:
    path = make_project(tmp_path / "Größe und Maß", file_name="Studie ß.qpproj")

    assert read_project(path.parent) == read_project(path)


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_project(tmp_path)
    monkeypatch.chdir(tmp_path)

    assert read_project("project.qpproj").path == path


def test_a_project_may_have_no_images(tmp_path: Path) -> None:
    assert read_project(make_project(tmp_path)).images == ()


def test_images_keep_the_order_of_the_project(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(number, slide) for number in (3, 1, 2)])

    assert [found.id for found in read_project(path).images] == ["3", "1", "2"]


def test_several_images_may_have_one_name(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(n, slide, name="same") for n in (1, 2)])

    assert [found.name for found in read_project(path).images] == ["same", "same"]


def test_a_byte_order_mark_is_no_harm(tmp_path: Path) -> None:
    path = make_project(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert read_project(path).version == "0.6.0"


@pytest.mark.parametrize(
    ("stated", "version"),
    [
        ("0.7.0", "0.7.0"),
        ("0.6.0-rc1", "0.6.0-rc1"),
        ("v0.2.0-m3", "0.2.0-m3"),
        ("0.7.0-SNAPSHOT", "0.7.0-SNAPSHOT"),
        ("0.5", "0.5"),
    ],
)
def test_versions_of_known_formats_are_read(tmp_path: Path, stated: str, version: str) -> None:
    assert read_project(make_project(tmp_path, version=stated)).version == version


def test_ten_thousand_images_are_read_in_less_than_a_second(tmp_path: Path, slide: Path) -> None:
    images = [image(number, slide, metadata=metadata()) for number in range(1, 10_001)]
    path = make_project(tmp_path / "p", images)
    seconds = []

    for _ in range(3):
        start = time.process_time()
        project = read_project(path, remap=[("/elsewhere", "/here"), ("C:\\slides", "/there")])
        seconds.append(time.process_time() - start)

    assert len(project.images) == 10_000
    assert min(seconds) < 1  # 0.5 s


def test_a_project_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "project.qpproj"

    assert refusal(path) == f"There is no project {path}: check the name and the folder."


@pytest.mark.parametrize("name", ["no folder", "a\0b.qpproj", "x" * 5000])
def test_a_path_that_leads_nowhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProjectError):
        read_project(tmp_path / name)


def test_a_project_that_qupath_had_half_replaced_is_in_its_backup(tmp_path: Path) -> None:
    path = make_project(tmp_path)
    path.rename(tmp_path / "project.qpproj.backup")

    for place in (path, tmp_path):
        assert "copy that to project.qpproj" in refusal(place)


def test_a_folder_without_a_project(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"There is no QuPath project (.qpproj) in {tmp_path}: pass the folder or the file of one."
    )


def test_a_folder_with_two_projects(tmp_path: Path) -> None:
    for name in ("a.qpproj", "b.qpproj"):
        make_project(tmp_path, file_name=name)

    assert refusal(tmp_path) == (
        f"{tmp_path} holds 2 projects (a.qpproj, b.qpproj): pass the one you mean."
    )


def test_a_slide_is_no_project(slide: Path) -> None:
    assert refusal(slide).startswith(f"{slide} is not a QuPath project: pass the file that ends in")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged or cut short (not JSON)"),
        (b"\0" * 512, "is damaged or cut short (not JSON)"),
        (b'{"version": "0.6.0", "images": [{"entryID": 1', "is damaged or cut short (not JSON)"),
        (b'{"version": "0.6.0" "images": []}', "is damaged (not JSON)"),
        (b"[" * 100_000, "is damaged or cut short (not JSON)"),
        (b'{"lastID": ' + b"1" * 5000 + b"}", "is damaged (not JSON)"),
        ('{"version": "0.6.0", "images": [], "uri": "ü"}'.encode("latin-1"), "(not UTF-8 text)"),
    ],
    ids=["empty", "zeros", "cut short", "no comma", "deep", "long number", "latin-1"],
)
def test_a_damaged_project(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "project.qpproj"
    path.write_bytes(content)

    message = refusal(path)

    assert message.startswith(f"The project {path} ")
    assert words in message
    assert message.endswith("put back a backup of yours.")


def test_a_damaged_project_names_the_backup_that_qupath_keeps(tmp_path: Path) -> None:
    path = make_project(tmp_path)
    (tmp_path / "project.qpproj.backup").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-20])

    assert refusal(path).endswith(
        "QuPath keeps the one from before its last save in project.qpproj.backup; copy that to "
        "project.qpproj."
    )


@pytest.mark.parametrize(
    "content", ["[]", "1", "null", "{}", '{"version": "0.6.0"}', '{"images": {}}']
)
def test_json_without_a_list_of_images_is_no_project(tmp_path: Path, content: str) -> None:
    path = tmp_path / "project.qpproj"
    path.write_text(content)

    assert refusal(path).startswith(f"{path} is not a QuPath project, for it lists no images")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (None, "does not say which QuPath wrote it: open it in QuPath 0.6 and save it."),
        (6, "does not say which QuPath wrote it: open it in QuPath 0.6 and save it."),
        ("newest", "says that QuPath 'newest' wrote it, which is no version"),
        ("v0.2.0-m1", "newer ones cannot read it"),
        ("v0.2.0-m2", "newer ones cannot read it"),
        ("0.1.2", "newer ones cannot read it"),
        ("0.8.0", "newer than this program knows (0.7): update wsisam-qupath."),
        ("v0.10.1-rc2", "newer than this program knows (0.7): update wsisam-qupath."),
        ("1.0.0", "newer than this program knows (0.7): update wsisam-qupath."),
    ],
)
def test_a_version_that_is_not_known(tmp_path: Path, version: object, words: str) -> None:
    path = make_project(tmp_path, version=version)

    message = refusal(path)

    assert words in message
    assert str(path) in message


def test_images_that_share_an_id_would_overwrite_each_other(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, slide), image(2, slide), image("1", slide)])

    assert "2 images of" in refusal(path)
    assert "(image 1, image 1): remove all but one" in refusal(path)


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may read anything")
def test_a_project_that_may_not_be_read(tmp_path: Path) -> None:
    path = make_project(tmp_path)
    path.chmod(0)

    with pytest.raises(ProjectError, match="check that you may read it"):
        read_project(path)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (None, "damaged (no entryID)"),
        ("image", "damaged (no entryID)"),
        ({"imageName": "A"}, "damaged (no entryID)"),
        ({"entryID": True}, "damaged (no entryID)"),
        ({"entryID": "../1"}, "damaged (no entryID)"),
        ({"entryID": -1}, "damaged (no entryID)"),
        ({"entryID": 1}, "does not say how to open a slide"),
        ({"entryID": 1, "serverBuilder": None}, "does not say how to open a slide"),
        ({"entryID": 1, "serverBuilder": ["uri"]}, "does not say how to open a slide"),
        ({"entryID": 1, "serverBuilder": {"builderType": 3}}, "does not say how to open a slide"),
        ({"entryID": 1, "serverBuilder": {"builderType": "uri"}}, "names no slide"),
        ({"entryID": 1, "serverBuilder": {"builderType": "uri", "uri": ""}}, "names no slide"),
        ({"entryID": 1, "serverBuilder": {"builderType": "uri", "uri": 5}}, "names no slide"),
        (image(1, "/not absolute as a URI? relative.svs"), "is not there"),
        (image(1, "relative.svs"), "is not there"),
        (image(1, "file:///" + "x" * 5000), "is not there"),
        (image(1, "file:///gone%ff.svs"), "is not in a folder: download it"),
        (image(1, "https://omero.org/?show=image-5"), "is not in a folder: download it"),
        (image(1, "omero-image://host/5"), "is not in a folder: download it"),
    ],
)
def test_a_broken_entry_keeps_nobody_from_the_others(
    tmp_path: Path, slide: Path, entry: object, words: str
) -> None:
    path = make_project(tmp_path / "p", [image(8, slide), entry, image(9, slide)])

    first, broken, last = read_project(path).images

    assert broken.trouble is not None
    assert words in broken.trouble
    assert broken.slide is None
    assert (first.trouble, last.trouble) == (None, None)


def test_an_entry_without_an_id_has_a_folder_of_no_other(tmp_path: Path, slide: Path) -> None:
    broken = {"imageName": "A", "serverBuilder": builder(slide)}
    path = make_project(tmp_path / "p", [broken, broken])

    assert [found.id for found in read_project(path).images] == ["no-id-1", "no-id-2"]


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("rotated", "rotated, so that"),
        ("cropped", "cropped, so that"),
        ("swapRedBlue", "with red and blue swapped, so that"),
        ("z_projected", "as a projection of its stack, so that"),
        ("kaleidoscope", "through its 'kaleidoscope', which is not known here, so that"),
    ],
)
def test_a_slide_that_qupath_alters_is_refused(
    tmp_path: Path, slide: Path, kind: str, how: str
) -> None:
    found = only_image(tmp_path, image(1, altered(kind, builder(slide))))

    assert found.slide is None
    assert found.trouble == (
        f"QuPath shows its slide {how} places in it are not those of the file: add the slide to "
        "the project as it is, and use that image."
    )


def test_levels_that_qupath_adds_change_no_pixel(tmp_path: Path, slide: Path) -> None:
    inner = builder(slide, args=["--series", "0"], metadata=metadata(mpp=(9, 9)))
    outer = altered("pyramidize", inner, metadata=metadata(mpp=(0.5, 0.5)))

    found = only_image(tmp_path, image(1, outer))

    assert (found.slide, found.trouble, found.mpp) == (slide, None, Mpp(0.5, 0.5))
    assert found.with_arguments


def test_levels_added_to_a_rotated_slide_leave_it_rotated(tmp_path: Path, slide: Path) -> None:
    outer = altered("pyramidize", altered("rotated", builder(slide)))

    found = only_image(tmp_path, image(1, outer))

    assert found.trouble is not None
    assert "rotated" in found.trouble


def test_a_slide_that_is_not_rgb_is_refused(tmp_path: Path, slide: Path) -> None:
    found = only_image(tmp_path, image(1, slide, metadata=metadata(rgb=False)))

    assert found.trouble is not None
    assert "is not RGB" in found.trouble


def test_arguments_of_qupath_are_told(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, slide, args=["--no-crop"]), image(2, slide)])

    assert [found.with_arguments for found in read_project(path).images] == [True, False]


@pytest.mark.parametrize(
    "stated",
    [
        calibration(1, 1, "px"),
        calibration(0, 0.5),
        calibration(-0.5, 0.5),
        calibration(float("nan"), 0.5),
        calibration(float("inf"), 0.5),
        calibration(10**400, 0.5),
        {"pixelWidth": {"value": "0.5", "unit": "µm"}, "pixelHeight": {"value": 0.5}},
        {"pixelWidth": {"value": 0.5, "unit": "µm"}},
        {"pixelWidth": 0.5, "pixelHeight": None},
        None,
        "0.5",
    ],
    ids=str,
)
def test_a_scale_that_is_none_is_none(tmp_path: Path, slide: Path, stated: object) -> None:
    content = {**metadata(), "pixelCalibration": stated}

    assert only_image(tmp_path, image(1, slide, metadata=content)).mpp is None


@pytest.mark.parametrize("stated", [0, -5, 2.5, "5", None, True])
def test_sizes_that_are_none_are_not_known(tmp_path: Path, slide: Path, stated: object) -> None:
    content: Json = {**metadata(), "width": stated, "sizeZ": stated, "sizeT": stated}

    found = only_image(tmp_path, image(1, slide, metadata=content))

    assert (found.size_px, found.z_count, found.t_count) == (None, 1, 1)
    assert found.trouble is None


def test_a_name_with_half_a_character_can_be_written(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, slide, name="half")])
    path.write_text(path.read_text().replace("half", "half \\ud83d"))

    assert read_project(path).images[0].name.encode() == b"half ?"


def test_a_missing_slide_says_how_to_find_it(tmp_path: Path) -> None:
    found = only_image(tmp_path, image(1, tmp_path / "gone.svs"))

    assert found.slide is None
    assert found.trouble == (
        f"Its slide {tmp_path / 'gone.svs'} is not there: put it back, or say with --remap OLD=NEW "
        "which folder is now where."
    )


@pytest.mark.parametrize(
    "uri",
    [
        "file:/old/x/a%20b%20%C3%BC.svs",
        "file:///old/x/a%20b%20%C3%BC.svs",
        "file:/C:/Old%20Slides/a%20b%20%C3%BC.svs",
        "file:///c:/old%20slides/a%20b%20%C3%BC.svs",
        "file:////server/share/a%20b%20%C3%BC.svs",
        "file://server/share/a%20b%20%C3%BC.svs",
    ],
)
def test_moved_slides_are_found_where_the_user_says(tmp_path: Path, slide: Path, uri: str) -> None:
    path = make_project(tmp_path / "p", [image(1, uri)])
    remap = [
        ("/old/x", str(slide.parent)),
        ("C:\\Old Slides\\", str(slide.parent)),
        ("//server/share", slide.parent.as_uri()),
    ]

    (found,) = read_project(path, remap=remap).images

    assert (found.slide, found.trouble) == (slide, None)
    assert found.uri == uri


def test_the_longest_old_place_wins(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, "file:///old/x/y/a%20b%20ü.svs")])
    remap = [("/old", "/nowhere"), ("/old/x/y", str(slide.parent)), ("/old/x", "/nowhere")]

    assert read_project(path, remap=remap).images[0].slide == slide


def test_a_single_slide_can_be_moved(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, "file:///old/name.svs")])

    assert read_project(path, remap=[("file:///old/name.svs", str(slide))]).images[0].slide == slide


def test_half_a_name_of_a_folder_is_none(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, "file:///old/slides2/a%20b%20ü.svs")])

    (found,) = read_project(path, remap=[("/old/slides", str(slide.parent))]).images

    assert found.slide is None


def test_what_the_user_says_wins_over_what_is_there(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, slide)])

    (found,) = read_project(path, remap=[(str(slide.parent), str(tmp_path / "new"))]).images

    assert found.trouble is not None
    assert str(tmp_path / "new" / slide.name) in found.trouble


@pytest.mark.parametrize(("old", "new"), [("", "/x"), ("/x", ""), ("https://host/x", "/x")])
def test_a_remap_that_names_no_folders(tmp_path: Path, old: str, new: str) -> None:
    path = make_project(tmp_path)

    with pytest.raises(OptionError, match="pass OLD=NEW"):
        read_project(path, remap=[(old, new)])


@pytest.mark.parametrize(
    ("old_project", "old_slide"),
    [
        ("file:/gone/study/p/project.qpproj", "file:///gone/study/slides/a%20b%20ü.svs"),
        ("file:/C:/study/p/project.qpproj", "file:/c:/Study/slides/a%20b%20%C3%BC.svs"),
        ("file:/C:/p/project.qpproj", "file:/C:/slides/a%20b%20%C3%BC.svs"),
        ("file:////srv/share/p/project.qpproj", "file:////srv/share/slides/a%20b%20%C3%BC.svs"),
    ],
)
def test_slides_that_moved_with_their_project_are_found(
    tmp_path: Path, slide: Path, old_project: str, old_slide: str
) -> None:
    path = make_project(tmp_path / "p", [image(1, old_slide)], uri=old_project)

    (found,) = read_project(path).images

    assert found.slide == slide


@pytest.mark.parametrize(
    "uri", ["file:/D:/p/project.qpproj", "file:/p/project.qpproj", "?", "s3://x"]
)
def test_a_slide_that_was_elsewhere_did_not_move_along(
    tmp_path: Path, slide: Path, uri: str
) -> None:
    path = make_project(tmp_path / "p", [image(1, "file:/C:/slides/a%20b%20ü.svs")], uri=uri)

    assert read_project(path).images[0].slide is None


@POSIX
def test_posix_paths_can_be_moved_to_windows() -> None:
    places = locations(Path("/p"), None, [("/mnt/slides", "D:\\slides")])

    assert places.moves == ((PurePosixPath("/mnt/slides"), PureWindowsPath("D:\\slides")),)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/a b/x.svs", PurePosixPath("/a b/x.svs")),
        ("file:/a%20b/x.svs", PurePosixPath("/a b/x.svs")),
        ("file://localhost/x.svs", PurePosixPath("/x.svs")),
        ("C:\\a\\x.svs", PureWindowsPath("C:/a/x.svs")),
        ("c:/a/x.svs", PureWindowsPath("C:/A/X.SVS")),
        ("file:///C:/a/x.svs", PureWindowsPath("C:/a/x.svs")),
        ("\\\\server\\share\\x.svs", PureWindowsPath("//server/share/x.svs")),
        ("file:////server/share/x.svs", PureWindowsPath("//server/share/x.svs")),
        ("file://server/share/x.svs", PureWindowsPath("//server/share/x.svs")),
    ],
)
def test_a_location_tells_the_system_that_it_is_of(
    location: str, path: PurePosixPath | PureWindowsPath
) -> None:
    assert pure_path(location) == path


def test_reading_leaves_no_trace(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, slide), {"entryID": 2}])
    before = contents(path.parent)

    read_project(path)

    assert contents(path.parent) == before
    assert json.loads(before["project.qpproj"])["version"] == "0.6.0"
