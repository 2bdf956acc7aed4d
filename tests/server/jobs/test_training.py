"""Training for a client: the real command on a real project, and a stand-in for its process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from fixtures.job_servers import TOKEN, Answer, project_in
from fixtures.qupath_fixtures import add_objects, make_project
from fixtures.servers import client_of
from fixtures.training_data import OUTLINES, drawn, write_slide
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.inference.segmenter import Segmenter
from wsisam_qupath.options import ModelSpec
from wsisam_qupath.qupath.install.program import find_command
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.server.app import create_app
from wsisam_qupath.server.config import ServerConfig
from wsisam_qupath.server.jobs.training import Training
from wsisam_qupath.server.jobs.training_routes import make_training_routes
from wsisam_qupath.server.loading import ModelLoader

PATIENCE_SECONDS = 3600

COMPARED = """
import json, sys, time
out = sys.argv[sys.argv.index("-o") + 1]
def tell(event, **content):
    print(json.dumps({"event": event, **content}), file=sys.stderr, flush=True)
tell("progress", what="Training points", done=1, total=4, seconds_left=3.0)
tell("message", message="3 images: 2 to train on, 1 to validate on.")
print("a library's warning", file=sys.stderr, flush=True)
tell("comparison", kind="points", says=SAYS, before=0.5, after=0.6, low=0.01, high=0.2)
open(out, "wb").write(b"trained")
open(out.replace(".safetensors", ".report.html"), "w").write("<p>Report</p>")
"""
"""What the command says and leaves, without training anything."""

REFUSED = """
import json, sys
reason = "no data set is named so."
said = {"event": "error", "message": f"wsisam-qupath: --without: {reason}", "reason": reason}
print(json.dumps(said), file=sys.stderr)
sys.exit(2)
"""
"""How the command refuses an option."""

ENDLESS = "import time\nwhile True: time.sleep(0.01)"


@dataclass
class Trainer:
    """Asks a server to train."""

    app: Flask
    training: Training
    offered: list[Path]
    project: Path

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return Answer.of(
            self.app.test_client().open(path, method=method, headers=headers, json=body)
        )

    def start(self, **more: object) -> dict[str, Any]:
        body = {"project": str(self.project), "name": "mine", **more}
        answer = self.ask("POST", "/v1/trainings", body)
        assert answer.status_code == 202, answer.json
        assert answer.headers["Location"] == f"/v1/trainings/{answer.json['id']}"
        return answer.json

    def wait(self, status: dict[str, Any], is_so: Callable[[dict[str, Any]], bool]) -> Any:
        end = time.monotonic() + PATIENCE_SECONDS
        while not is_so(status):
            assert time.monotonic() < end, status
            time.sleep(0.1)
            status = self.ask("GET", f"/v1/trainings/{status['id']}").json
        return status

    def ended(self, status: dict[str, Any]) -> Any:
        return self.wait(status, lambda s: s["state"] != "running")


@contextmanager
def trainer(
    folder: Path, project: Path, *program: str, config: ServerConfig | None = None
) -> Iterator[Trainer]:
    config = config or ServerConfig(TOKEN)
    service = client_of().service
    offered: list[Path] = []
    training = Training(ModelSpec(), folder, offered.append, program)
    routes = make_training_routes(training, config, service.device_queue.budget)
    try:
        yield Trainer(create_app(service, config, routes), training, offered, project)
    finally:
        training.stop()


def program(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return project_in(tmp_path / "Projekt")


@pytest.mark.parametrize("says", ["better", "equal"])
def test_an_adapter_is_offered_where_it_is_better(tmp_path: Path, project: Path, says: str) -> None:
    stand_in = program(COMPARED.replace("SAYS", repr(says)))
    with trainer(tmp_path, project, *stand_in) as asked:
        ended = asked.ended(asked.start())
        report = asked.ask("GET", f"/v1/trainings/{ended['id']}/report")

        assert ended["state"] == "done"
        assert ended["notes"] == ["3 images: 2 to train on, 1 to validate on."]
        assert [one["says"] for one in ended["comparisons"]] == [says]
        assert report.data == b"<p>Report</p>"
        kept = tmp_path / "adapters" / "lite-medsam" / "mine.safetensors"
        is_better = says == "better"
        assert ("mine is better on slides" in ended["summary"]) == is_better
        assert ended["adapter"] == ("mine" if is_better else None)
        assert asked.offered == ([kept] if is_better else [])

    with trainer(tmp_path, project) as later:
        later.training.offer_earlier()
        assert later.offered == asked.offered


def test_progress_is_told_and_one_is_trained_at_a_time(tmp_path: Path, project: Path) -> None:
    slow = COMPARED.replace('print("a library', 'time.sleep(600); print("a library')
    with trainer(tmp_path, project, *program(slow)) as asked:
        status = asked.wait(asked.start(), lambda s: bool(s["notes"]))
        assert (status["what"], status["done"], status["total"]) == ("Training points", 1, 4)
        assert status["progress"] == "Training points, 3.0 s left"

        second = asked.ask("POST", "/v1/trainings", {"project": str(project), "name": "other"})
        assert second.status_code == 503
        assert second.json["detail"].startswith("mine is being trained.")
        assert asked.ask("GET", f"/v1/trainings/{status['id']}/report").status_code == 404
        assert asked.ask("GET", "/v1/trainings/1").status_code == 404


def test_a_cancelled_training_ends_with_its_process(tmp_path: Path, project: Path) -> None:
    with trainer(tmp_path, project, *program(ENDLESS)) as asked:
        status = asked.start()

        cancelled = asked.ask("DELETE", f"/v1/trainings/{status['id']}")

        assert cancelled.json["state"] == "cancelled"
        assert asked.start()["state"] == "running"


def test_without_its_packages_training_names_the_command_that_brings_them(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    blocked = "import sys\nsys.modules['torch'] = None\n"
    (hidden / "sitecustomize.py").write_text(blocked)
    path = os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    with trainer(tmp_path, project, *find_command()) as asked:
        ended = asked.ended(asked.start())

    assert ended["state"] == "failed"
    assert ended["reason"].startswith("Training and evaluation need the package torch. Run ")
    assert 'pip install "wsisam-qupath[train]"' in ended["reason"]


def test_a_server_for_some_folders_trains_for_nobody(tmp_path: Path, project: Path) -> None:
    config = ServerConfig(TOKEN, slides=(tmp_path,))
    with trainer(tmp_path, project, *program(COMPARED), config=config) as asked:
        answer = asked.ask("POST", "/v1/trainings", {"project": str(project), "name": "mine"})

    assert answer.status_code == 403
    assert "`wsisam-qupath train`" in answer.json["detail"]


@pytest.mark.parametrize("name", ["none", "default", "../mine", "", "a" * 65])
def test_a_name_is_a_plain_file_name_of_no_other_model(
    tmp_path: Path, project: Path, name: str
) -> None:
    with trainer(tmp_path, project, *program(COMPARED)) as asked:
        answer = asked.ask("POST", "/v1/trainings", {"project": str(project), "name": name})

    assert answer.status_code == 422
    assert not (tmp_path / "training").exists()


def test_a_refusal_names_no_option_of_the_command_line(tmp_path: Path, project: Path) -> None:
    with trainer(tmp_path, project, *program(REFUSED)) as asked:
        ended = asked.ended(asked.start())

    assert (ended["state"], ended["reason"]) == ("failed", "no data set is named so.")


@pytest.mark.slow
def test_a_model_that_is_loaded_on_demand_is_loaded_by_its_first_request() -> None:
    loaded: list[str] = []

    def load() -> Segmenter:
        loaded.append("once")
        return Segmenter(resolve(ModelSpec(device="cpu")).load())

    models = ModelLoader(load, on_demand=True)
    assert not models.is_busy
    with pytest.raises(Exception, match="still being loaded"):
        models.segmenter()
    models.wait()

    assert models.segmenter() is models.loaded
    assert loaded == ["once"]


@pytest.mark.slow
@pytest.mark.walk
@pytest.mark.qupath
def test_a_project_is_trained_on_and_compared(qupath: QuPathProcess, tmp_path: Path) -> None:
    slides = [write_slide(tmp_path / f"{name}.tif") for name in "abc"]
    project = qupath.run(make_project, tmp_path / "project", slides)
    for entry_id in "123":
        gland = {**drawn(OUTLINES[0]), "id": f"00000000-0000-4000-8000-{entry_id:0>12}"}
        qupath.run(add_objects, project, entry_id, [gland])
    with trainer(tmp_path / "home", project) as asked:
        ended = asked.ended(asked.start(steps=2, views=8))
        report = asked.ask("GET", f"/v1/trainings/{ended['id']}/report")

    assert ended["state"] == "done", ended
    assert {one["kind"] for one in ended["comparisons"]} == {
        "box",
        "point",
        "points",
        "box+points",
        "outline",
    }
    assert any("training is cross-validated" in note for note in ended["notes"])
    assert b"<html" in report.data
    assert bool(ended["adapter"]) == any(s["says"] == "better" for s in ended["comparisons"])
