"""A server with project jobs, asked through Flask's client."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from project_files import image, make_project
from wsisam_qupath.batch.run import BatchCancelledError
from wsisam_qupath.engine import Segmenter
from wsisam_qupath.errors import WeightsError
from wsisam_qupath.server.app import create_app
from wsisam_qupath.server.config import ServerConfig
from wsisam_qupath.server.job_access import JobAccess
from wsisam_qupath.server.job_routes import job_routes, project_jobs
from wsisam_qupath.server.job_run import JobInHand
from wsisam_qupath.server.jobs import Jobs
from wsisam_qupath.server.loading import ModelLoader
from wsisam_qupath.server.service import Service
from wsisam_qupath.server.slides import Slides
from wsisam_qupath.server.turns import Turns

TOKEN = "a-token-for-tests"
PROBLEM = "urn:wsisam-qupath:problem:"
PATIENCE_SECONDS = 300
"""For a machine that has much else to do."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What came back; no JSON is an empty object."""

    status_code: int
    headers: Mapping[str, str]
    data: bytes
    json: Json

    @classmethod
    def of(cls, response: TestResponse) -> Answer:
        return cls(
            response.status_code,
            dict(response.headers.items()),
            response.data,
            response.get_json() if response.is_json else {},
        )


@dataclass
class JobServer:
    """Asks a server for jobs."""

    app: Flask
    jobs: Jobs

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        client = self.app.test_client()
        return Answer.of(client.open(path, method=method, headers=headers, json=body))

    def add(self, project: Path, **wanted: object) -> str:
        """Ask for a job; its id."""
        answer = self.ask("POST", "/v1/jobs", {"project": str(project), **wanted})
        assert answer.status_code == 202, answer.json
        found: str = answer.json["id"]
        assert answer.headers["Location"] == f"/v1/jobs/{found}"
        return found

    def status(self, job_id: str) -> Json:
        answer = self.ask("GET", f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.json
        return answer.json

    def results(self, job_id: str) -> list[Json]:
        answer = self.ask("GET", f"/v1/jobs/{job_id}/results")
        assert answer.headers["Content-Type"] == "application/geo+json-seq"
        records = answer.data.split(b"\x1e")[1:]
        assert all(record.endswith(b"\n") for record in records)
        return [json.loads(record) for record in records]

    def wait_until(self, job_id: str, condition: Callable[[Json], bool]) -> Json:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition(status := self.status(job_id)):
            assert time.monotonic() < deadline, status
            time.sleep(0.005)
        return status

    def ended(self, job_id: str) -> Json:
        return self.wait_until(job_id, lambda status: status["ended"] is not None)


@contextmanager
def job_server(
    folder: Path, segmenter: Segmenter | None, config: ServerConfig | None = None
) -> Iterator[JobServer]:
    """A server whose jobs are done with a model, or which has none."""
    config = config or ServerConfig(TOKEN)
    models = ModelLoader(lambda: _given(segmenter))
    models.start()
    service = Service(models, Slides(config), Turns(8), config.limits)
    jobs, routes = project_jobs(service, config, folder)
    jobs.start()
    try:
        yield JobServer(create_app(service, config, routes), jobs)
    finally:
        jobs.stop()


@dataclass
class Workshop:
    """Does jobs when it is told to, in place of QuPath and a model."""

    begun: list[str] = field(default_factory=list)
    shown: list[frozenset[str]] = field(default_factory=list)
    may_end: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def run(self, job: JobInHand) -> None:
        self.begun.append(job.request.project)
        self.shown += [] if job.shown is None else [job.shown.shown]
        stopped = threading.Event()
        job.cancellation.then(stopped.set)
        while not self.may_end.acquire(timeout=0.01):
            if stopped.is_set():
                raise BatchCancelledError


@contextmanager
def idle_server(
    folder: Path, workshop: Workshop, config: ServerConfig | None = None
) -> Iterator[JobServer]:
    """A server whose jobs are done by a workshop."""
    config = config or ServerConfig(TOKEN)
    models = ModelLoader(lambda: _given(None))
    service = Service(models, Slides(config), Turns(8), config.limits)
    jobs = Jobs(folder, workshop.run)
    jobs.start()
    try:
        routes = job_routes(jobs, JobAccess(config), config.limits)
        yield JobServer(create_app(service, config, routes), jobs)
    finally:
        jobs.stop()


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


def _given(segmenter: Segmenter | None) -> Segmenter:
    if segmenter is None:
        raise WeightsError("There are no weights. Get some.")
    return segmenter
