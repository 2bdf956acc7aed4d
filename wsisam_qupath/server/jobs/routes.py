"""Project jobs over HTTP: routes decode, call, encode."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from flask import Blueprint, Response, g, url_for

from ...errors import ProjectError
from ...project.access import check_closed
from ...qupath.files.entries import Project
from ..app import encode_record, json_body, json_response
from ..budget import MemoryBudget
from ..config import Limits, ServerConfig
from ..decoding import decode
from ..job_schemas import JobList, JobRequest, JobSummary, ShownImages
from ..problems import make_invalid_problem
from ..schemas import GEOJSON_SEQ
from ..service import Service
from .access import JobAccess
from .queue import JobQueue
from .run import JobRunner


def project_jobs(
    service: Service, config: ServerConfig, folder: Path
) -> tuple[JobQueue, Blueprint]:
    """Make the job queue of a server and its routes.

    Args:
        folder: folder that jobs are kept in; see :class:`.JobStore`.
    """
    access = JobAccess(config)
    jobs = JobQueue(folder, JobRunner(service.models, service.device_queue, access).run)
    return jobs, job_routes(jobs, access, config.limits, service.device_queue.budget)


def job_routes(
    jobs: JobQueue, access: JobAccess, limits: Limits, budget: MemoryBudget
) -> Blueprint:
    """Make the routes below ``/v1/jobs``; tokens and problems are the application's concern."""
    routes = Blueprint("jobs", __name__, url_prefix="/v1/jobs")

    @routes.post("")
    def add() -> Response:
        with budget.reservation() as memory:
            wanted = decode(json_body(), JobRequest, limits, memory)
        project, _ = access.open(wanted)
        if not wanted.is_open:
            _check_closed(project)
        status = jobs.add(wanted, project.path, g.client_name)
        answer = json_response(status, HTTPStatus.ACCEPTED)
        answer.headers["Location"] = url_for("jobs.status", job_id=status.id)
        return answer

    @routes.get("")
    def list_jobs() -> Response:
        found = [
            JobSummary(**status.model_dump(exclude={"ended_images"})) for status in jobs.list_all()
        ]
        return json_response(JobList(jobs=found))

    @routes.get("/<job_id>")
    def status(job_id: str) -> Response:
        return json_response(jobs.status(job_id))

    @routes.delete("/<job_id>")
    def delete(job_id: str) -> Response:
        cancelled = jobs.delete(job_id)
        if cancelled is None:
            return Response(status=HTTPStatus.NO_CONTENT)
        return json_response(cancelled, HTTPStatus.ACCEPTED)

    @routes.get("/<job_id>/results")
    def results(job_id: str) -> Response:
        records = map(encode_record, jobs.results(job_id))
        return Response(records, content_type=GEOJSON_SEQ)

    @routes.put("/<job_id>/open-images")
    def show(job_id: str) -> Response:
        with budget.reservation() as memory:
            shown = decode(json_body(), ShownImages, limits, memory)
        return json_response(jobs.show(job_id, shown.images))

    return routes


def _check_closed(project: Project) -> None:
    """Refuse a project that is declared closed, but that a QuPath on this computer has open."""
    try:
        check_closed(project, lambda _: None)  # the job notes it
    except ProjectError as exc:
        message = f"{exc} Or say project_is_open, with the images that it shows."
        raise make_invalid_problem("project_is_open", message) from exc
