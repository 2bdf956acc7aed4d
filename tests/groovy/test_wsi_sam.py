"""QuPath's script against a real server: without a window, in QuPath's own Java."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shapely
from shapely.geometry import MultiPoint, box, mapping

from fixtures.command_line import identity
from fixtures.qupath_fixtures import Seen, add_objects, make_project, objects_in
from fixtures.qupath_program import run_qupath
from fixtures.script_runs import (
    CLASSES,
    SCRIPT,
    RunningServer,
    compile_script,
    live_in,
    note_program,
    run_script,
)
from wsisam_qupath.qupath.jvm.process import QuPathProcess

pytestmark = pytest.mark.qupath

GLAND = box(150, 150, 290, 290)
CLICKS = MultiPoint([(370, 360), (380, 372)])


def drawn(number: int, geometry: Any, path_class: str | None = None) -> dict[str, Any]:
    properties = {"objectType": "annotation"}
    if path_class is not None:
        properties["classification"] = path_class
    return {
        "type": "Feature",
        "id": identity(number),
        "geometry": mapping(geometry),
        "properties": properties,
    }


PROMPTS = [
    drawn(1, GLAND, "Gland"),
    drawn(2, CLICKS),
    drawn(3, MultiPoint([(200, 160), (470, 470)]), "Ignore*"),
]


def class_of(name: str) -> str:
    """Groovy that evaluates to one of the script's classes."""
    folder = f"new URL('{SCRIPT.parent.as_uri()}/')"
    loader = f"new GroovyClassLoader(getClass().classLoader).tap {{ addURL({folder}) }}"
    return f"{loader}.loadClass('wsisam.{name}')"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, qupath: QuPathProcess) -> Path:
    folder = tmp_path_factory.mktemp("home")
    qupath.run(live_in, folder)
    return folder


@pytest.fixture(scope="module")
def slides(home: Path, tissue_path: Path) -> Path:
    """The folder that the server may read."""
    folder = home / "slides"
    folder.mkdir()
    shutil.copy(tissue_path, folder / "tissue.tif")
    shutil.copy(tissue_path, home / "elsewhere.tif")
    return folder


@pytest.fixture(scope="module")
def server(home: Path, slides: Path) -> Iterator[RunningServer]:
    running = RunningServer.start(home, "--slides", str(slides), "--adapter", "none")
    yield running
    running.stop()


@pytest.fixture
def project(tmp_path: Path, qupath: QuPathProcess, slides: Path) -> Path:
    """Image 1 is one that the server can read, image 2 the same elsewhere."""
    found = [slides / "tissue.tif", slides.parent / "elsewhere.tif"]
    path = qupath.run(make_project, tmp_path / "project", found)
    for entry_id in ("1", "2"):
        qupath.run(add_objects, path, entry_id, PROMPTS)
    return path


def results(qupath: QuPathProcess, project: Path, entry_id: str = "1") -> dict[str, Seen]:
    """Results by the ids of their prompts."""
    seen = qupath.run(objects_in, project, entry_id)
    return {
        one.metadata["wsisam_prompt_id"]: one for one in seen if "wsisam_prompt_id" in one.metadata
    }


def test_the_script_compiles(qupath: QuPathProcess) -> None:
    files = {path.stem for path in CLASSES.glob("*.groovy")}
    assert {"wsi_sam", "Commands", *files} <= set(qupath.run(compile_script))


@pytest.mark.walk
def test_qupath_runs_it_on_an_image_and_again_without_doubling(
    qupath: QuPathProcess, server: RunningServer, project: Path
) -> None:
    command = ["script", "-p", str(project), "-i", "tissue.tif", "-s", str(SCRIPT)]

    told = [run_at(server.home, *command) for _ in range(2)]

    assert [text.count("prompts: 2, without outline: []") for text in told] == [1, 1], told
    found = results(qupath, project)
    assert set(found) == {identity(1), identity(2)}
    assert len(qupath.run(objects_in, project, "1")) == len(PROMPTS) + 2
    assert {one.parent for one in found.values()} == {identity(1), identity(2)}
    gland, clicked = found[identity(1)], found[identity(2)]
    assert (gland.type, gland.path_class) == ("PathDetectionObject", "Gland")
    assert clicked.path_class is None
    assert shapely.from_wkt(gland.wkt).within(GLAND.buffer(30))
    assert gland.measurements["Predicted IoU"] > 0


def run_at(home: Path, *arguments: str) -> str:
    """QuPath's own command, as a user with that home; what it prints."""
    own = (f"-Duser.home={home}", f"-Djava.util.prefs.userRoot={home}")
    done = run_qupath(*arguments, java_options=own)
    return done.stdout + done.stderr


@pytest.mark.walk
def test_the_server_that_it_starts_is_found_though_java_has_another_home_folder(
    qupath: QuPathProcess, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, other = tmp_path / "java", tmp_path / "program"
    other.mkdir()
    note_program(home, sys.executable, "-m", "wsisam_qupath")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(other))

    told = run_at(home, "script", "-p", str(project), "-i", "tissue.tif", "-s", str(SCRIPT))

    assert "prompts: 2, without outline: []" in told, told
    assert set(results(qupath, project)) == {identity(1), identity(2)}
    assert not list(home.rglob("servers/*.json")), "the server ended with QuPath"


def test_a_slide_that_the_server_cannot_read_is_sent_to_it(
    qupath: QuPathProcess, server: RunningServer, project: Path
) -> None:
    for entry_id in ("1", "2"):
        qupath.run(run_script, project, entry_id)

    read, sent = results(qupath, project, "1"), results(qupath, project, "2")
    assert set(read) == set(sent) == {identity(1), identity(2)}
    for prompt_id, one in read.items():
        ours, theirs = shapely.from_wkt(one.wkt), shapely.from_wkt(sent[prompt_id].wkt)
        assert ours.intersection(theirs).area / ours.union(theirs).area >= 0.98


def test_of_several_servers_on_this_machine_one_that_answers_is_used(
    qupath: QuPathProcess, server: RunningServer, project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / ".wsisam-qupath" / "servers"
    folder.mkdir(parents=True)
    gone = {"url": "http://127.0.0.1:9", "token": "x"}
    for number, about in enumerate([server.connection, gone, {"no": "url"}, gone]):
        path = folder / f"{number}.json"
        path.write_text(json.dumps(about))
        os.utime(path, (number, number))
    (folder / "5.json").write_text("{")
    qupath.run(live_in, tmp_path)
    try:
        qupath.run(run_script, project, "1")
    finally:
        qupath.run(live_in, server.home)

    assert set(results(qupath, project)) == {identity(1), identity(2)}


def test_the_script_finds_its_files_beside_it_in_a_folder_with_any_name(
    qupath: QuPathProcess, home: Path, project: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(SCRIPT.parent, tmp_path / "Mes scripts, été 100% + #2")
    qupath.run(live_in, tmp_path)
    try:
        told = qupath.run(run_script, project, "1", "", "", folder / SCRIPT.name)
    finally:
        qupath.run(live_in, home)

    assert told.startswith("No server is running on this computer.")


def test_what_a_person_locked_stays_beside_the_next_result(
    qupath: QuPathProcess, server: RunningServer, project: Path
) -> None:
    qupath.run(run_script, project, "1")
    first = results(qupath, project)[identity(1)]
    lock = "imageData.getHierarchy().getDetectionObjects().each { it.setLocked(true) }"
    move = (
        "def one = imageData.getHierarchy().getAnnotationObjects().find { it.getROI().isArea() };"
        "one.setROI(one.getROI().translate(6, 6))"
    )

    qupath.run(run_script, project, "1", lock + "\n" + move)

    seen = [one for one in qupath.run(objects_in, project, "1") if "Detection" in one.type]
    of_first = [one for one in seen if one.metadata["wsisam_prompt_id"] == identity(1)]
    assert len(seen) == 3
    assert [one.is_locked for one in of_first if one.id == first.id] == [True]
    assert len({one.id for one in of_first}) == 2


def test_a_turned_image_is_sent_as_it_is_shown(
    qupath: QuPathProcess, server: RunningServer, project: Path
) -> None:
    look = f"""
        import qupath.lib.images.servers.RotatedImageServer as Rotated
        import qupath.lib.regions.ImagePlane
        def server = imageData.getServer()
        def exchange = {class_of("Exchange")}
        [new Rotated(server, Rotated.Rotation.ROTATE_180), server].collect {{
            exchange.slideOf(it, ImagePlane.getDefaultPlane()).uri
        }}.toString()
    """

    told = qupath.run(run_script, project, "1", "", look)

    assert told.startswith("[qupath:pixels, file:/"), told


def test_an_outline_that_touches_itself_is_sent_with_all_of_its_vertices(
    qupath: QuPathProcess, project: Path
) -> None:
    look = f"""
        import qupath.lib.objects.PathObjects
        import qupath.lib.regions.ImagePlane
        import qupath.lib.roi.ROIs
        def (x, y) = [[0, 9, 9, 19, 19, 9, 9, 0], [0, 0, 9, 9, 19, 19, 9, 9]]
        def roi = ROIs.createPolygonROI(x as double[], y as double[], ImagePlane.getDefaultPlane())
        def drawing = {class_of("Drawing")}
        drawing.featureOf(PathObjects.createAnnotationObject(roi)).get('geometry').get('coordinates')
    """

    told = qupath.run(run_script, project, "1", "", look)

    corners = [(0, 0), (9, 0), (9, 9), (19, 9), (19, 19), (9, 19), (9, 9), (0, 9), (0, 0)]
    assert json.loads(told) == [[list(map(float, corner)) for corner in corners]]


@pytest.mark.walk
def test_more_than_a_request_may_hold_is_sent_in_parts(
    qupath: QuPathProcess, home: Path, slides: Path, tmp_path: Path
) -> None:
    path = qupath.run(make_project, tmp_path / "project", [slides / "tissue.tif"])
    places = [(x, y) for x in (60, 220, 380) for y in (60, 220, 380)]
    areas = [drawn(n, box(x, y, x + 60, y + 60)) for n, (x, y) in enumerate(places)]
    clicks = drawn(9, MultiPoint([(90, 90), (95, 100)]))  # of the first rectangle
    qupath.run(add_objects, path, "1", [*areas, clicks])
    (tmp_path / "home").mkdir()
    small = RunningServer.start(tmp_path / "home", "--max-prompts", "4", "--adapter", "none")
    qupath.run(live_in, small.home)
    try:
        qupath.run(run_script, path, "1")
        chosen = "imageData.getHierarchy().getDetectionObjects().each "
        qupath.run(run_script, path, "1", chosen + "{ it.getMeasurements().put('Rank', 2d) }")
    finally:
        qupath.run(live_in, home)
        small.stop()

    found = results(qupath, path)
    assert set(found) == {identity(n) for n in range(9)}
    assert len(qupath.run(objects_in, path, "1")) == 19
    assert small.log.count("POST /v1/segment 200") >= 12
    assert {one.measurements.get("Rank") for one in found.values()} == {2.0}, "all were left"


@pytest.mark.parametrize("is_running", [True, False])
def test_a_server_that_is_silent_is_not_waited_for_for_ever(
    qupath: QuPathProcess, server: RunningServer, project: Path, tmp_path: Path, is_running: bool
) -> None:
    note_program(tmp_path, sys.executable, "-c", "input()")
    ask = f"""
        def all = {class_of("Server")}.classLoader
        def make = {{ name, given = [:] -> all.loadClass("wsisam.$name").newInstance(given) }}
        def given = [settings: make('Settings'), longestWait: java.time.Duration.ofSeconds(1)]
        def server = make('Server', given)
        try {{
            server.ask(make('Request'), '/v1/info')
        }} finally {{
            server.stop()
        }}
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        if is_running:
            (tmp_path / ".wsisam-qupath" / "program.json").unlink()
            folder = tmp_path / ".wsisam-qupath" / "servers"
            folder.mkdir()
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            (folder / "1.json").write_text(json.dumps({"url": url, "token": "x"}))
        qupath.run(live_in, tmp_path)
        try:
            told = qupath.run(run_script, project, "1", ask)
        finally:
            qupath.run(live_in, server.home)

    start = "The server at http" if is_running else "The server that QuPath started"
    assert told.startswith(start), told
    assert "is silent" in told


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("no server", "No server is running on this computer. Start it in a terminal with"),
        ("no program", "The server cannot be started"),
        ("it ends", "The server that QuPath started has ended: see View > Show log"),
        ("it is gone", "No server responds at http://127.0.0.1:9. Start it in a terminal with"),
        ("wrong token", "enter it in Extensions > WSI-SAM > Settings"),
        ("another program", "is not a server of wsisam-qupath, or it is too old"),
        ("no address", "is not the address of a server: enter it in"),
        ("no pixel size", "This image has no pixel size: double-click Pixel width"),
    ],
)
def test_each_failure_names_its_fix(
    qupath: QuPathProcess,
    server: RunningServer,
    project: Path,
    tmp_path: Path,
    trouble: str,
    words: str,
) -> None:
    prepare = ""
    if trouble == "no pixel size":
        prepare = (
            "import qupath.lib.images.servers.*\n"
            "def builder = new ImageServerMetadata.Builder(imageData.getServer().getMetadata())\n"
            "imageData.updateServerMetadata("
            "builder.pixelSizeMicrons(Double.NaN, Double.NaN).build())"
        )
    elif trouble in ("no program", "it ends"):
        note_program(
            tmp_path, *("nowhere",) if trouble == "no program" else (sys.executable, "-c", "")
        )
    elif trouble != "no server":
        folder = tmp_path / ".wsisam-qupath" / "servers"
        folder.mkdir(parents=True)
        url = {
            "it is gone": "http://127.0.0.1:9",
            "no address": "localhost",
            "another program": server.connection["url"] + "/elsewhere",
        }.get(trouble, server.connection["url"])
        token = "wrong" if trouble == "wrong token" else server.connection["token"]
        (folder / "1.json").write_text(f'{{"url": "{url}", "token": "{token}"}}')
    qupath.run(live_in, server.home if trouble == "no pixel size" else tmp_path)
    try:
        told = qupath.run(run_script, project, "1", prepare)
    finally:
        qupath.run(live_in, server.home)

    assert words in told
