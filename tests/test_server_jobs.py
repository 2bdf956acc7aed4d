"""The queue of project jobs, and what is said of it over HTTP; a workshop stands for the work."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from job_servers import TOKEN, JobServer, Workshop, idle_server, job_server
from project_files import image, make_project
from qupath_fixtures import qupath
from wsisam_qupath.qupath.process import QuPathProcess
from wsisam_qupath.server import jobs as jobs_module
from wsisam_qupath.server.config import ServerConfig
from wsisam_qupath.server.job_access import JobAccess
from wsisam_qupath.server.job_protocol import JobRequest

__all__ = ["qupath"]  # a fixture

PROBLEM = "urn:wsisam-qupath:problem:"


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "jobs"


@pytest.fixture
def server(folder: Path, workshop: Workshop) -> Iterator[JobServer]:
    with idle_server(folder, workshop) as found:
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return project_in(tmp_path / "Projekt")


def project_in(folder: Path) -> Path:
    slide = folder / "a.svs"
    folder.mkdir(parents=True)
    slide.touch()
    return make_project(folder, [image(1, slide, name="a.svs"), image(2, slide, name="b.svs")])


def states(server: JobServer) -> list[str]:
    return [job["state"] for job in server.ask("GET", "/v1/jobs").json["jobs"]]


# The queue


def test_jobs_are_done_one_at_a_time_in_their_order(
    server: JobServer, workshop: Workshop, tmp_path: Path
) -> None:
    projects = [project_in(tmp_path / name) for name in "abc"]
    ids = [server.add(one) for one in projects]
    server.wait_until(ids[0], lambda status: status["state"] == "running")

    assert states(server) == ["running", "waiting", "waiting"]
    assert len(workshop.begun) == 1
    for _ in ids:
        workshop.may_end.release()
    for job_id in ids:
        assert server.ended(job_id)["state"] == "done"
    assert workshop.begun == [str(one) for one in projects]


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_runs_soon(
    server: JobServer, workshop: Workshop, project: Path
) -> None:
    first, second = server.add(project), server.add(project)
    server.wait_until(first, lambda status: status["state"] == "running")

    answers = [server.ask("DELETE", f"/v1/jobs/{one}") for one in (second, first)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json["state"] == "cancelled"
    assert server.ended(first)["state"] == "cancelled"
    assert len(workshop.begun) == 1


def test_a_job_that_has_ended_is_forgotten_by_its_deletion(
    server: JobServer, workshop: Workshop, project: Path, folder: Path
) -> None:
    job_id = server.add(project)
    workshop.may_end.release()
    server.ended(job_id)

    answer = server.ask("DELETE", f"/v1/jobs/{job_id}")

    assert (answer.status_code, answer.data) == (204, b"")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/results")):
        gone = server.ask(method, f"/v1/jobs/{job_id}{path}")
        assert (gone.status_code, gone.json["type"]) == (404, PROBLEM + "not-found")
    assert not (folder / job_id).exists()


def test_no_more_jobs_wait_than_there_is_room_for(
    server: JobServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "MOST_WAITING", 1)
    first = server.add(project)
    server.wait_until(first, lambda status: status["state"] == "running")
    server.add(project)

    answer = server.ask("POST", "/v1/jobs", {"project": str(project)})

    assert (answer.status_code, answer.json["type"]) == (503, PROBLEM + "busy")
    assert answer.headers["Retry-After"]


def test_old_jobs_make_room_unless_their_results_wait(
    server: JobServer, workshop: Workshop, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "MOST_KEPT", 2)
    ids = []
    for _ in range(3):
        ids.append(server.add(project))
        workshop.may_end.release()
        server.ended(ids[-1])

    kept = [job["id"] for job in server.ask("GET", "/v1/jobs").json["jobs"]]

    assert kept == ids[1:]


@pytest.mark.qupath
def test_without_a_model_a_job_fails_with_its_cure(
    qupath: QuPathProcess, folder: Path, project: Path
) -> None:
    with job_server(folder, None) as server:
        status = server.ended(server.add(project))

    assert status["state"] == "failed"
    assert status["reason"] == "The server has no model. There are no weights. Get some."


def test_without_qupath_a_job_fails_with_its_cure(
    folder: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(tmp_path / "none"))
    with job_server(folder, None) as server:
        status = server.ended(server.add(project))

    assert status["state"] == "failed"
    assert "PAQUO_QUPATH_DIR" in status["reason"]


# A restart


def test_a_restart_takes_up_what_was_not_done(
    folder: Path, workshop: Workshop, project: Path
) -> None:
    with idle_server(folder, workshop) as first:
        ids = [first.add(project) for _ in range(3)]
        workshop.may_end.release()
        first.ended(ids[0])
        first.wait_until(ids[1], lambda status: status["state"] == "running")
    with idle_server(folder, workshop) as second:
        for _ in range(2):
            workshop.may_end.release()
        ended = [second.ended(one) for one in ids]

    assert [one["state"] for one in ended] == ["done"] * 3
    assert [bool(one["notes"]) for one in ended] == [False, True, False]
    assert "goes on where it was" in ended[1]["notes"][0]
    assert len(workshop.begun) == 4


def test_a_restart_knows_what_qupath_shows(folder: Path, workshop: Workshop, project: Path) -> None:
    with idle_server(folder, workshop) as first:
        job_id = first.add(project, open_image="1")
        first.wait_until(job_id, lambda status: status["state"] == "running")
        first.ask("PUT", f"/v1/jobs/{job_id}/open-images", {"images": ["2"]})
    with idle_server(folder, workshop) as second:
        second.wait_until(job_id, lambda status: status["state"] == "running")

    assert [sorted(one) for one in workshop.shown] == [["1"], ["2"]]


def test_a_cancelled_job_stays_cancelled(folder: Path, workshop: Workshop, project: Path) -> None:
    with idle_server(folder, workshop) as first:
        job_id = first.add(project)
        first.ask("DELETE", f"/v1/jobs/{job_id}")
    with idle_server(folder, workshop) as second:
        assert second.ended(job_id)["state"] == "cancelled"


def test_a_job_in_whose_middle_servers_die_is_given_up(
    folder: Path, workshop: Workshop, project: Path
) -> None:
    with idle_server(folder, workshop) as first:
        job_id = first.add(project)
        first.wait_until(job_id, lambda status: status["state"] == "running")
    path = folder / job_id / "job.json"
    stored = json.loads(path.read_bytes())
    assert (stored["status"]["state"], stored["tries"]) == ("running", 0)
    path.write_text(json.dumps({**stored, "tries": 3}), encoding="utf-8")

    with idle_server(folder, workshop) as second:
        status = second.status(job_id)

    assert status["state"] == "failed"
    assert "ended 3 times in the middle of this job" in status["reason"]


def test_a_damaged_job_is_passed_over_and_stays(
    folder: Path, workshop: Workshop, project: Path
) -> None:
    with idle_server(folder, workshop) as first:
        ids = [first.add(project) for _ in range(2)]
    damaged = folder / ids[0] / "job.json"
    damaged.write_bytes(damaged.read_bytes()[:-20])

    with idle_server(folder, workshop) as second:
        found = [job["id"] for job in second.ask("GET", "/v1/jobs").json["jobs"]]

    assert found == ids[1:]
    assert damaged.exists()


def test_two_servers_do_not_take_each_others_jobs(
    server: JobServer, folder: Path, workshop: Workshop, project: Path
) -> None:
    ours = server.add(project)
    with idle_server(folder, Workshop()) as other:
        theirs = other.add(project)

        assert other.ask("GET", f"/v1/jobs/{ours}").status_code == 404
        assert server.ask("GET", f"/v1/jobs/{theirs}").status_code == 404

    assert sorted(path.name for path in folder.iterdir()) == sorted([ours, "lock"])


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_jobs_are_their_owners_alone(server: JobServer, folder: Path, project: Path) -> None:
    job_id = server.add(project)

    for path in (folder, folder / job_id):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_nothing_is_taken_while_the_server_stops(server: JobServer, project: Path) -> None:
    server.jobs.stop()

    answer = server.ask("POST", "/v1/jobs", {"project": str(project)})

    assert (answer.status_code, answer.json["type"]) == (503, PROBLEM + "busy")


# What may be asked


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({}, "project"),
        ({"project": ""}, "project"),
        ({"project": 3}, "project"),
        ({"project": "p", "imagez": []}, "imagez"),
        ({"project": "p", "images": []}, "images"),
        ({"project": "p", "images": "a.svs"}, "images"),
        ({"project": "p", "project_is_open": "yes"}, "project_is_open"),
        ({"project": "p", "open_images": [None]}, "open_images[0]"),
        ({"project": "p", "mpp": 0}, "mpp"),
        ({"project": "p", "options": {"class": "Tumor:"}}, "options"),
        ({"project": "p", "options": {"class": "a\nb"}}, "options"),
        ({"project": "p", "options": {"simplify_um": -1}}, "options.simplify_um"),
    ],
)
def test_a_wrong_request_is_told_its_field(
    server: JobServer, wanted: dict[str, object], field: str
) -> None:
    answer = server.ask("POST", "/v1/jobs", wanted)

    assert (answer.status_code, answer.json["type"]) == (422, PROBLEM + "invalid")
    assert field in [error["field"] for error in answer.json["errors"]]


def test_an_image_that_is_none_is_named(server: JobServer, project: Path) -> None:
    answer = server.ask("POST", "/v1/jobs", {"project": str(project), "images": ["a.svs", "c"]})

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "images")
    assert "images c is no image of" in answer.json["detail"]
    assert "--images" not in answer.json["detail"]


def test_a_damaged_project_is_told_with_its_cure(server: JobServer, project: Path) -> None:
    project.write_bytes(b'{"version": "0.6.0", "images": [')

    answer = server.ask("POST", "/v1/jobs", {"project": str(project)})

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "project")
    assert "put back a backup" in answer.json["detail"]


@pytest.mark.parametrize("location", [Path.as_uri, str, lambda path: str(path.parent)])
def test_a_project_is_named_by_uri_path_or_folder(
    server: JobServer, project: Path, location: object
) -> None:
    assert callable(location)
    answer = server.ask("POST", "/v1/jobs", {"project": location(project)})

    assert answer.status_code == 202
    assert answer.json["project"] == str(project)


def test_what_qupath_shows_is_taken_only_for_open_projects(
    server: JobServer, project: Path
) -> None:
    closed = server.add(project)
    opened = server.add(project, open_image="1")

    refused = server.ask("PUT", f"/v1/jobs/{closed}/open-images", {"images": ["1"]})
    taken = server.ask("PUT", f"/v1/jobs/{opened}/open-images", {"images": ["1", "2"]})

    assert (refused.status_code, refused.json["type"]) == (422, PROBLEM + "invalid")
    assert taken.status_code == 200


def test_jobs_need_the_token(server: JobServer) -> None:
    for method, path in (("POST", ""), ("GET", ""), ("GET", "/x"), ("DELETE", "/x")):
        answer = server.app.test_client().open(f"/v1/jobs{path}", method=method)
        assert answer.status_code == 401


# Folders


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    return tmp_path / "allowed"


@pytest.fixture
def strict(folder: Path, workshop: Workshop, allowed: Path) -> Iterator[JobServer]:
    allowed.mkdir()
    with idle_server(folder, workshop, ServerConfig(TOKEN, slides=(allowed,))) as found:
        yield found


def test_a_project_inside_of_the_allowed_folders_is_taken(strict: JobServer, allowed: Path) -> None:
    inside = project_in(allowed / "Projekt ä")
    for location in (str(inside), inside.as_uri(), str(allowed / "Projekt ä" / ".." / "Projekt ä")):
        answer = strict.ask("POST", "/v1/jobs", {"project": location})
        assert (answer.status_code, answer.json["project"]) == (202, str(inside))


def hostile(allowed: Path, outside: Path) -> list[str]:
    return [
        str(outside),
        str(outside.parent),
        outside.as_uri(),
        f"{allowed}/../{outside.parent.name}/{outside.name}",
        f"{allowed.as_uri()}/../{outside.parent.name}/{outside.name}",
        f"{allowed.as_uri()}/%2e%2e/{outside.parent.name}/{outside.name}",
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
    strict: JobServer, allowed: Path, tmp_path: Path
) -> None:
    outside = project_in(tmp_path / "outside")
    for location in hostile(allowed, outside):
        answer = strict.ask("POST", "/v1/jobs", {"project": location})
        assert (answer.status_code, answer.json["type"]) == (403, PROBLEM + "slide-outside")
        assert "--slides" in answer.json["detail"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("what", ["folder", "file", "file in a folder", "data"])
def test_a_link_that_leads_out_of_them_is_refused(
    strict: JobServer, allowed: Path, tmp_path: Path, what: str
) -> None:
    outside = project_in(tmp_path / "outside")
    location = allowed / "p" / "project.qpproj"
    if what == "folder":
        (allowed / "p").symlink_to(outside.parent)
    elif what == "data":
        project_in(allowed / "p")
        (allowed / "p" / "data").rmdir()
        (allowed / "p" / "data").symlink_to(outside.parent / "data")
    else:
        (allowed / "p").mkdir()
        location.symlink_to(outside)
        location = location.parent if "in" in what else location

    answer = strict.ask("POST", "/v1/jobs", {"project": str(location)})

    assert (answer.status_code, answer.json["type"]) == (403, PROBLEM + "slide-outside")


def test_a_project_that_is_not_there_is_missed_inside_of_them_only(
    strict: JobServer, allowed: Path
) -> None:
    answer = strict.ask("POST", "/v1/jobs", {"project": str(allowed / "x" / "project.qpproj")})

    assert (answer.status_code, answer.json["type"]) == (404, PROBLEM + "not-found")


def test_an_image_whose_slide_lies_outside_of_them_is_in_trouble_and_the_other_is_not(
    allowed: Path, tmp_path: Path
) -> None:
    slides = [allowed / "a.svs", tmp_path / "b.svs"]
    allowed.mkdir()
    for slide in slides:
        slide.touch()
    images = [image(number, slide) for number, slide in enumerate(slides, start=1)]
    project = make_project(allowed / "p", images)
    access = JobAccess(ServerConfig(TOKEN, slides=(allowed,)))

    _, entries = access.open(JobRequest(project=str(project)))

    assert entries[0].trouble is None
    assert "start the server with --slides" in str(entries[1].trouble)


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
