"""Which slides a server reads: the table of hostile paths, maps, sizes, what is missing."""

from __future__ import annotations

import os
import shutil
import threading
import time
import unicodedata
from collections import Counter
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest

from fixtures.formula import formula_rgb, write_aperio
from fixtures.letters import FORMS, Form
from wsisam_qupath.server.access import find_allowed
from wsisam_qupath.server.config import ServerConfig
from wsisam_qupath.server.problems import ProblemError
from wsisam_qupath.server.schemas import SlideAsOpen
from wsisam_qupath.server.slides import Slides
from wsisam_qupath.slide.pyramid import write_pyramid

posix_only = pytest.mark.skipif(os.name == "nt", reason="paths of POSIX")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tissue_path: Path) -> Path:
    """``slides`` with a slide in it, ``slides-secret`` with another, and links between them."""
    root = tmp_path_factory.mktemp("server").resolve()
    for name in ("slides", "slides-secret"):
        (root / name / "deep").mkdir(parents=True)
        shutil.copy(tissue_path, root / name / "tissue.tif")
    (root / "slides" / "link.tif").symlink_to(root / "slides-secret" / "tissue.tif")
    (root / "slides" / "linked").symlink_to(root / "slides-secret")
    (root / "slides" / "inner.tif").symlink_to(root / "slides" / "tissue.tif")
    (root / "way-in").symlink_to(root / "slides")
    return root


def slides_of(folders: Path, *maps: tuple[str, str], host: str = "127.0.0.1") -> Slides:
    config = ServerConfig("t", host=host, slides=(folders / "slides",), maps=maps)
    return Slides(config)


def wanted(uri: str, side_px: int = 512, mpp: float | None = 0.5) -> SlideAsOpen:
    return SlideAsOpen(uri=uri, width=side_px, height=side_px, mpp_x=mpp)


def refusal(slides: Slides, uri: str, **about: object) -> str:
    with pytest.raises(ProblemError) as caught:
        slides.open(wanted(uri, **about))  # type: ignore[arg-type]
    return caught.value.name


HOSTILE = [
    "{root}/slides-secret/tissue.tif",
    "file:{root}/slides-secret/tissue.tif",
    "file://{root}/slides-secret/tissue.tif",
    "{root}/slides/../slides-secret/tissue.tif",
    "{root}/slides/deep/../../slides-secret/tissue.tif",
    "file:{root}/slides/%2e%2e/slides-secret/tissue.tif",
    "file:{root}/slides/%2E%2E%2Fslides-secret/tissue.tif",
    "file:{root}/slides%2F..%2Fslides-secret/tissue.tif",
    "file:{root}/slides/..%5cslides-secret/tissue.tif/../../../slides-secret/tissue.tif",
    "{root}/slides/link.tif",
    "{root}/slides/linked/tissue.tif",
    "{root}/way-in/linked/tissue.tif",
    "{root}/slides-secret/nothing-there.tif",
    "{root}/nothing/../slides-secret/tissue.tif",
    "{root}",
    "/etc/passwd",
    "file:///etc/passwd",
    "file:/etc/passwd%00.tif",
    "/etc/passwd\0.tif",
    "/proc/self/environ",
    "/dev/zero",
    "slides/tissue.tif",
    "tissue.tif",
    "../slides/tissue.tif",
    "~/tissue.tif",
    "file:tissue.tif",
    "file://evil.example{root}/slides/tissue.tif",
    "file://evil.example/share/tissue.tif",
    "file:////evil.example/share/tissue.tif",
    "//evil.example/share/tissue.tif",
    "\\\\evil.example\\share\\tissue.tif",
    "\\\\?\\C:\\tissue.tif",
    "\\\\.\\PhysicalDrive0",
    "C:\\tissue.tif",
    "file:/C:/tissue.tif",
    "file:///C:/tissue.tif",
    "file://C:/tissue.tif",
    "http://evil.example/tissue.tif",
    "https://127.0.0.1{root}/slides/tissue.tif",
    "jar:file:{root}/slides/tissue.tif",
    "file:{root}/slides/tissue.tif?series=2",
    "file:{root}/slides/tissue.tif#2",
    "file:%FF%FE",
    "file:",
    "   ",
    "/" + "a/" * 2000,
]


@posix_only
@pytest.mark.parametrize("location", HOSTILE)
def test_no_way_leads_out_of_the_slide_folders(folders: Path, location: str) -> None:
    slides = slides_of(folders)

    assert refusal(slides, location.replace("{root}", str(folders))) == "slide-outside"


@posix_only
@pytest.mark.parametrize(
    "location",
    [
        "{root}/slides/tissue.tif",
        "file:{root}/slides/tissue.tif",
        "file://{root}/slides/tissue.tif",
        "file://localhost{root}/slides/tissue.tif",
        "file:{root}/slides/t%69ssue.tif",
        "{root}/slides/deep/../tissue.tif",
        "{root}/slides/inner.tif",
        "{root}/way-in/tissue.tif",
    ],
)
def test_what_lies_in_the_slide_folders_is_read_by_whatever_way(
    folders: Path, location: str
) -> None:
    slide = slides_of(folders).open(wanted(location.replace("{root}", str(folders))))

    assert Path(slide.location) == folders / "slides" / "tissue.tif"


@posix_only
@pytest.mark.parametrize("here", FORMS)
@pytest.mark.parametrize("asked", FORMS)
def test_a_slide_is_found_however_a_client_composes_letters(
    tmp_path: Path, tissue_path: Path, here: Form, asked: Form
) -> None:
    folder = tmp_path / unicodedata.normalize(here, "Prüfung")
    folder.mkdir()
    slide = folder / unicodedata.normalize(here, "Präparat.tif")
    shutil.copy(tissue_path, slide)
    location = unicodedata.normalize(asked, str(slide))

    found = find_allowed(Path(location), [folder], anywhere=False)

    assert found == Path(os.path.realpath(slide))
    assert find_allowed(Path(location), [tmp_path / "x"], anywhere=False) is None


@posix_only
def test_a_link_that_is_spelled_otherwise_leads_into_no_other_folder(tmp_path: Path) -> None:
    folder, secret = tmp_path / "slides", tmp_path / "secret.tif"
    folder.mkdir()
    secret.touch()
    (folder / unicodedata.normalize("NFC", "ä.tif")).symlink_to(secret)

    asked = folder / unicodedata.normalize("NFD", "ä.tif")

    assert find_allowed(asked, [folder], anywhere=False) is None


def test_a_slide_stays_open_for_the_next_request(folders: Path) -> None:
    slides = slides_of(folders)
    uri = (folders / "slides" / "tissue.tif").as_uri()

    assert slides.open(wanted(uri)) is slides.open(wanted(uri))
    assert slides.open(wanted(uri, mpp=0.25)).mpp.x == 0.25


def test_a_slide_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_aperio(path, formula_rgb(range(96), range(96)), "0.5")
    slides = slides_of_folder(tmp_path)
    before = slides.open(wanted(path.as_uri(), 96))
    write_aperio(tmp_path / "new.svs", formula_rgb(range(96), range(1, 97)), "0.5")
    os.utime(tmp_path / "new.svs", ns=(1, 1))
    del before
    (tmp_path / "new.svs").replace(path)

    assert slides.open(wanted(path.as_uri(), 96)).identity.mtime_ns == 1


def slides_of_folder(folder: Path) -> Slides:
    return Slides(ServerConfig("t", slides=(folder,)))


@pytest.mark.parametrize(
    ("client", "uri"),
    [
        ("Z:\\slides", "file:/Z:/slides/tissue.tif"),
        ("Z:\\slides", "z:\\SLIDES\\tissue.tif"),
        ("//server/share", "file:////server/share/tissue.tif"),
        ("\\\\server\\share", "file://server/share/tissue.tif"),
        ("/Volumes/slides", "file:/Volumes/slides/tissue.tif"),
    ],
)
def test_folders_of_clients_are_mapped(folders: Path, client: str, uri: str) -> None:
    slides = slides_of(folders, (client, str(folders / "slides")))

    assert Path(slides.open(wanted(uri)).location) == folders / "slides" / "tissue.tif"


@posix_only
def test_a_map_leads_into_no_other_folder(folders: Path) -> None:
    slides = slides_of(folders, ("Z:\\all", str(folders)))

    assert refusal(slides, "Z:\\all\\slides-secret\\tissue.tif") == "slide-outside"
    assert refusal(slides, "Z:\\all\\slides\\..\\slides-secret\\tissue.tif") == "slide-outside"


def test_a_server_for_this_machine_reads_what_its_user_can(folders: Path) -> None:
    slides = Slides(ServerConfig("t"))
    path = folders / "slides-secret" / "tissue.tif"

    assert Path(slides.open(wanted(path.as_uri())).location) == path


def test_a_server_for_others_reads_nothing_unless_it_is_told(folders: Path) -> None:
    slides = Slides(ServerConfig("t", host="0.0.0.0"))
    uri = (folders / "slides" / "tissue.tif").as_uri()

    assert refusal(slides, uri) == "slide-outside"


def test_a_slide_that_is_not_there_is_missing(folders: Path) -> None:
    uri = (folders / "slides" / "other.tif").as_uri()

    assert refusal(slides_of(folders), uri) == "slide-missing"


def test_what_is_no_slide_is_unreadable(folders: Path) -> None:
    (folders / "slides" / "words.txt").write_text("words")

    assert refusal(slides_of(folders), str(folders / "slides" / "words.txt")) == "slide-unreadable"
    assert refusal(slides_of(folders), str(folders / "slides" / "deep")) == "slide-unreadable"


def test_a_slide_of_another_size_is_another_one(folders: Path) -> None:
    uri = (folders / "slides" / "tissue.tif").as_uri()

    assert refusal(slides_of(folders), uri, side_px=511) == "slide-differs"


def test_a_slide_without_pixel_size_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "plain.svs"
    write_aperio(path, formula_rgb(range(96), range(96)), None)
    slides = slides_of_folder(tmp_path)

    assert refusal(slides, path.as_uri(), side_px=96, mpp=None) == "no-pixel-size"
    assert slides.open(wanted(path.as_uri(), 96, 0.25)).mpp.y == 0.25


def test_the_pixel_size_of_the_client_wins(folders: Path) -> None:
    uri = (folders / "slides" / "tissue.tif").as_uri()

    assert slides_of(folders).open(wanted(uri, mpp=0.3)).mpp.x == 0.3
    assert slides_of(folders).open(wanted(uri, mpp=None)).mpp.x == 0.5


@posix_only
def test_a_path_of_windows_is_no_file_here() -> None:
    assert find_allowed(PureWindowsPath("C:/x.tif"), (), anywhere=True) is None


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_a_name_that_is_swapped_for_a_link_never_shows_a_slide_outside(
    folders: Path, tmp_path: Path, swapped: str
) -> None:
    """The slide outside is of another size: to open it would be another answer."""
    root = tmp_path.resolve()
    inside, outside = root / "slides" / "deep" / "a.tif", root / "secret" / "a.tif"
    for path in (inside, outside):
        path.parent.mkdir(parents=True)
    shutil.copy(folders / "slides" / "tissue.tif", inside)
    write_pyramid(outside, np.zeros((256, 256, 3), dtype=np.uint8), mpp=0.5)
    name = inside if swapped == "file" else inside.parent
    real, link = root / "real", root / "link"
    link.symlink_to(outside if swapped == "file" else outside.parent)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            name.rename(real)
            link.rename(name)
            name.rename(link)
            real.rename(name)

    found: Counter[str] = Counter()
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            slides = Slides(ServerConfig("t", slides=(root / "slides",)))
            try:
                slides.open(wanted(str(inside)))
                found["opened"] += 1
            except ProblemError as exc:
                found[exc.name] += 1
    finally:
        stop.set()
        swapping.join()

    assert found["opened"] > 0
    assert found["slide-differs"] == 0, found


@posix_only
def test_a_location_that_the_system_does_not_let_us_look_at_is_outside(folders: Path) -> None:
    for uri in ("/proc/1@home@/x.svs", "/proc/1/root/x.svs", "/" + "x" * 4000):
        assert refusal(slides_of(folders), uri) in ("slide-outside", "slide-missing")


def test_a_slide_is_named_by_its_own_name(folders: Path) -> None:
    path = folders / "slides" / "tissue.tif"
    slide = slides_of(folders).open(wanted(str(path)))
    (folders / "slides" / "damaged.svs").write_bytes(b"II*\0 and no more")

    assert slide.location == str(path)
    with pytest.raises(ProblemError, match=r"slides.damaged\.svs"):
        slides_of(folders).open(wanted(str(folders / "slides" / "damaged.svs")))
