"""Trainings over HTTP: routes decode, call, encode."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response, url_for

from ..app import json_body, json_response
from ..budget import MemoryBudget
from ..config import ServerConfig
from ..decoding import decode
from ..job_schemas import JobRequest, TrainingRequest
from ..problems import ProblemError
from .access import JobAccess
from .training import Training


def make_training_routes(
    training: Training, config: ServerConfig, budget: MemoryBudget
) -> Blueprint:
    """Make the routes below ``/v1/trainings``; the application sees to tokens and problems."""
    routes = Blueprint("trainings", __name__, url_prefix="/v1/trainings")
    access = JobAccess(config)

    @routes.post("")
    def add() -> Response:
        with budget.reservation() as memory:
            wanted = decode(json_body(), TrainingRequest, config.limits, memory)
        if not access.files.is_free:  # the process would read what this server may not
            raise ProblemError(
                "slide-outside",
                "This server opens the files of some folders only, and trains for nobody. Run "
                "`wsisam-qupath train` where the slides are.",
            )
        project, _ = access.open(JobRequest(project=wanted.project))
        status = training.start(wanted, project.path, config.maps)
        answer = json_response(status, HTTPStatus.ACCEPTED)
        answer.headers["Location"] = url_for("trainings.status", job_id=status.id)
        return answer

    @routes.get("/<job_id>")
    def status(job_id: str) -> Response:
        return json_response(training.status(job_id))

    @routes.delete("/<job_id>")
    def cancel(job_id: str) -> Response:
        return json_response(training.cancel(job_id))

    @routes.get("/<job_id>/report")
    def report(job_id: str) -> Response:
        return Response(training.report(job_id), content_type="text/html; charset=utf-8")

    return routes
