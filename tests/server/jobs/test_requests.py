"""What may be asked of project jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.job_servers import PROBLEM, JobServer


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
        ({"project": "p", "options": {"class": "Tumor:"}}, "options.class"),
        ({"project": "p", "options": {"class": "a\nb"}}, "options.class"),
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
    assert "images: c is no image of" in answer.json["detail"]
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
