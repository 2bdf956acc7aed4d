"""Projects and slides for jobs, inside of the allowed folders and outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.job_servers import PROBLEM, TOKEN, JobServer, Workshop, idle_server, project_in
from fixtures.project_files import image, make_project
from wsisam_qupath.server.config import ServerConfig
from wsisam_qupath.server.job_schemas import JobRequest
from wsisam_qupath.server.jobs.access import JobAccess


@pytest.fixture
def find_allowed(tmp_path: Path) -> Path:
    return tmp_path / "allowed"


@pytest.fixture
def strict(folder: Path, workshop: Workshop, find_allowed: Path) -> Iterator[JobServer]:
    find_allowed.mkdir()
    with idle_server(folder, workshop, ServerConfig(TOKEN, slides=(find_allowed,))) as found:
        yield found


def test_a_project_inside_of_the_allowed_folders_is_taken(
    strict: JobServer, find_allowed: Path
) -> None:
    inside = project_in(find_allowed / "Projekt ä")
    for location in (
        str(inside),
        inside.as_uri(),
        str(find_allowed / "Projekt ä" / ".." / "Projekt ä"),
    ):
        answer = strict.ask("POST", "/v1/jobs", {"project": location})
        assert (answer.status_code, answer.json["project"]) == (202, str(inside))


def hostile(find_allowed: Path, outside: Path) -> list[str]:
    return [
        str(outside),
        str(outside.parent),
        outside.as_uri(),
        f"{find_allowed}/../{outside.parent.name}/{outside.name}",
        f"{find_allowed.as_uri()}/../{outside.parent.name}/{outside.name}",
        f"{find_allowed.as_uri()}/%2e%2e/{outside.parent.name}/{outside.name}",
        f"file://host{outside}",
        f"//host{outside}",
        f"\\\\host\\share\\{outside.name}",
        "file:////host/share/project.qpproj",
        "http://host/project.qpproj",
        outside.name,
        f"../{outside.parent.name}/{outside.name}",
        "C:\\project.qpproj",
        "/etc/passwd",
        "/proc/self/root/etc/passwd",
        "~/project.qpproj",
        "\0",
        "a" * 4000,
    ]


def test_a_project_outside_of_them_is_refused_however_it_is_named(
    strict: JobServer, find_allowed: Path, tmp_path: Path
) -> None:
    outside = project_in(tmp_path / "outside")
    for location in hostile(find_allowed, outside):
        answer = strict.ask("POST", "/v1/jobs", {"project": location})
        assert (answer.status_code, answer.json["type"]) == (403, PROBLEM + "slide-outside")
        assert "the server's slides" in answer.json["detail"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("what", ["folder", "file", "file in a folder", "data"])
def test_a_link_that_leads_out_of_them_is_refused(
    strict: JobServer, find_allowed: Path, tmp_path: Path, what: str
) -> None:
    outside = project_in(tmp_path / "outside")
    location = find_allowed / "p" / "project.qpproj"
    if what == "folder":
        (find_allowed / "p").symlink_to(outside.parent)
    elif what == "data":
        project_in(find_allowed / "p")
        (find_allowed / "p" / "data").rmdir()
        (find_allowed / "p" / "data").symlink_to(outside.parent / "data")
    else:
        (find_allowed / "p").mkdir()
        location.symlink_to(outside)
        location = location.parent if "in" in what else location

    answer = strict.ask("POST", "/v1/jobs", {"project": str(location)})

    assert (answer.status_code, answer.json["type"]) == (403, PROBLEM + "slide-outside")


def test_a_project_that_is_not_there_is_missed_inside_of_them_only(
    strict: JobServer, find_allowed: Path
) -> None:
    answer = strict.ask("POST", "/v1/jobs", {"project": str(find_allowed / "x" / "project.qpproj")})

    assert (answer.status_code, answer.json["type"]) == (404, PROBLEM + "not-found")


def test_an_image_whose_slide_lies_outside_of_them_is_in_trouble_and_the_other_is_not(
    find_allowed: Path, tmp_path: Path
) -> None:
    slides = [find_allowed / "a.svs", tmp_path / "b.svs"]
    find_allowed.mkdir()
    for slide in slides:
        slide.touch()
    images = [image(number, slide) for number, slide in enumerate(slides, start=1)]
    project = make_project(find_allowed / "p", images)
    access = JobAccess(ServerConfig(TOKEN, slides=(find_allowed,)))

    _, entries = access.open(JobRequest(project=str(project)))

    assert entries[0].trouble is None
    assert "add the folder to the server's slides" in str(entries[1].trouble)


def test_folders_of_clients_are_mapped_for_projects_and_their_slides(tmp_path: Path) -> None:
    slide = tmp_path / "scans" / "a.svs"
    slide.parent.mkdir()
    slide.touch()
    make_project(tmp_path / "p", [image(1, "file:///N:/scans/a.svs")])
    maps = (("N:\\", str(tmp_path)),)
    access = JobAccess(ServerConfig(TOKEN, slides=(tmp_path,), maps=maps))

    project, entries = access.open(JobRequest(project="N:\\p\\project.qpproj"))

    assert project.path == tmp_path / "p" / "project.qpproj"
    assert entries[0].slide == slide
