"""From an export to an adapter that answers, as a user walks."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import distributed

from fixtures import training_runs
from fixtures.models import PLAIN_BASE, sam_of
from fixtures.project_files import contents
from fixtures.training_data import OUTLINES, overlap
from fixtures.training_runs import ONE_DECODER, ROUTED, export_of, train
from wsisam_qupath.errors import AdapterError, OutputError
from wsisam_qupath.geometry import Box
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.inference.segmenter import Segmenter
from wsisam_qupath.model.adapter import read_adapter
from wsisam_qupath.model.build import Networks
from wsisam_qupath.model.card import SecondPass
from wsisam_qupath.options import ModelSpec
from wsisam_qupath.prompts import Prompt, PromptKind
from wsisam_qupath.prompts.results import Result
from wsisam_qupath.slide import open_slide
from wsisam_qupath_training.evaluate.measures import Estimate
from wsisam_qupath_training.run.command import run_train
from wsisam_qupath_training.run.request import TrainRequest
from wsisam_qupath_training.run.verdict import Judgment, keep_start
from wsisam_qupath_training.splits import read_split
from wsisam_qupath_training.trainer.distributed import DistributedContext
from wsisam_qupath_training.trainer.run_folder import hold_folders
from wsisam_qupath_training.trainer.write_adapter import WrittenAdapter

pytestmark = [pytest.mark.slow, pytest.mark.walk]


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def told(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@dataclass(frozen=True)
class Walked:
    """An export and what was trained on it."""

    export: Path
    slide: Path
    made: WrittenAdapter
    words: str


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    folder = tmp_path_factory.mktemp("walk")
    export, words = export_of(folder), console()
    made = train(export, folder / "mine.safetensors", ROUTED, words)
    assert made is not None
    return Walked(export, folder / "slides" / "a.tif", made, told(words))


def test_an_export_becomes_an_adapter_with_its_split_and_its_report(walked: Walked) -> None:
    adapter = read_adapter(walked.made.adapter, PLAIN_BASE)

    assert set(adapter.card.decoders) == {"boxes", "points"}
    assert re.fullmatch(r".*: 1 images of 1 groups, 3 objects", adapter.card.training)
    assert sorted(read_split(walked.made.split).values()) == ["train", "val"]
    assert "2 images: 1 to train on, 1 to validate on, 0 left for a test." in walked.words
    assert re.search(r"boxes: step 2, validation Dice \d", walked.words)


def test_training_says_for_each_kind_of_prompt_whether_it_is_better_than_before(
    walked: Walked, tmp_path: Path
) -> None:
    words = console()
    request = TrainRequest(
        walked.export,
        tmp_path / "mine.safetensors",
        recipe=ROUTED.model_copy(update={"compared_objects": 3}),
        model=ModelSpec(adapter=None, device="cpu"),
        run=walked.made.adapter.with_suffix(".training"),  # it is finished
        cache=walked.made.adapter.parent / "features",
    )

    made = run_train(request, words)

    assert "Compared with tissue-lite-medsam on 3 objects to validate on:" in told(words)
    lines = re.findall(r"^  (\S+): (better|equal|worse) \(Dice", told(words), re.MULTILINE)
    assert [kind for kind, _ in lines] == ["box", "point", "points", "box+points", "outline"]
    assert "Kept as it was" not in told(words)  # training did not start from it
    assert made is not None
    assert made.report is not None
    page = made.report.read_text(encoding="utf-8")
    assert page.count("95 % interval of the gain") == 5


def test_the_report_shows_both_decoders_and_their_worst_cases(walked: Walked) -> None:
    assert walked.made.report is not None

    page = walked.made.report.read_text(encoding="utf-8")

    assert re.findall(r"<h3>(\w+)</h3>", page)[:2] == ["boxes", "points"]
    dices = [float(dice) for dice in re.findall(r"<b>Dice ([\d.]+)</b>", page)]
    assert dices == sorted(dices)
    assert 1 <= len(dices) <= 12
    assert page.count("data:image/png") == 2
    assert page.count("data:image/jpeg") == len(dices)


def test_segment_answers_with_the_new_adapter(walked: Walked) -> None:
    predictor = resolve(
        ModelSpec(adapter=walked.made.adapter, device="cpu", backend="torch")
    ).load()
    prompts = [
        Prompt("box", l0_box=Box(*OUTLINES[0].bounds)),
        Prompt("point", l0_positives=((220.0, 80.0),)),
    ]

    with open_slide(walked.slide) as slide:
        answers = {a.prompt.id: a for a in Segmenter(predictor).segment(slide, prompts)}

    assert set(answers) == {"box", "point"}
    points = answers["point"]
    if isinstance(points, Result):  # two steps are few: it may see nothing, but not fail
        assert 0 <= overlap(points.polygon, OUTLINES[1]) <= 1


def test_training_again_goes_no_further_and_writes_the_same(walked: Walked) -> None:
    before = walked.made.adapter.read_bytes()

    again = train(walked.export, walked.made.adapter, ROUTED, console())

    assert again is not None
    assert again.adapter.read_bytes() == before
    assert again.report is not None
    assert again.report.read_text(encoding="utf-8").count("no step in this run") == 2


def test_the_end_of_a_training_deletes_its_own_graphs_and_nothing_else(walked: Walked) -> None:
    run = walked.made.adapter.with_suffix(".training")
    theirs, left = run / "graphs" / "theirs.txt", run / "compared.graphs" / "left by a kill"
    for path in (theirs, left):
        path.parent.mkdir()
        path.write_text("kept")

    train(walked.export, walked.made.adapter, ROUTED, console())

    assert theirs.read_text() == "kept"
    assert not left.parent.exists()


def test_graphs_that_cannot_be_kept_are_told_with_what_to_do(
    walked: Walked, tmp_path: Path
) -> None:
    run = walked.made.adapter.with_suffix(".training")
    request = TrainRequest(
        walked.export,
        tmp_path / "mine.safetensors",
        recipe=ROUTED.model_copy(update={"compared_objects": 3}),
        model=ModelSpec(adapter=None, device="cpu"),
        run=run,
        cache=walked.made.adapter.parent / "features",
    )
    in_the_way = run / "compared.graphs"
    in_the_way.write_text("no folder")

    with pytest.raises(OutputError, match=r"written, but not compared: .* the same command again"):
        run_train(request, console())

    in_the_way.unlink()
    assert read_adapter(request.out, PLAIN_BASE).card.decoders.keys() == {"boxes", "points"}


def test_an_adapter_is_written_though_its_report_cannot_be(walked: Walked) -> None:
    assert walked.made.report is not None
    walked.made.adapter.unlink()
    walked.made.report.unlink()
    walked.made.report.mkdir()
    words = console()

    made = train(walked.export, walked.made.adapter, ROUTED, words)

    walked.made.report.rmdir()
    assert made is not None
    assert made.report is None
    assert made.adapter.is_file()
    assert "The adapter is written, but no report:" in told(words)


def test_another_recipe_does_not_go_on_where_a_run_stopped(walked: Walked) -> None:
    other = ROUTED.model_copy(update={"seed": 1})

    with pytest.raises(AdapterError, match="of a run with other settings or data"):
        train(walked.export, walked.made.adapter, other, console())


def test_with_one_slide_views_of_it_decide_and_it_is_said(tmp_path: Path) -> None:
    export, words = export_of(tmp_path, ("a.tif",)), console()

    made = train(export, tmp_path / "mine.safetensors", ONE_DECODER, words)

    assert made is not None
    assert made.adapter.is_file()
    assert "No patient is left to validate on" in told(words)


def test_training_may_start_from_an_adapter(walked: Walked, lite: Networks, tmp_path: Path) -> None:
    slow = ONE_DECODER.decoders["all"].model_copy(
        update={"decoder_rate": 1e-12, "prompt_rate": 1e-12, "weight_decay": 0.0}
    )
    recipe = ONE_DECODER.model_copy(update={"decoders": {"all": slow}})
    start = read_adapter(walked.made.adapter, PLAIN_BASE)

    made = run_train(
        TrainRequest(
            walked.export,
            tmp_path / "mine.safetensors",
            recipe=recipe,
            model=ModelSpec(adapter=walked.made.adapter, device="cpu"),
            cache=walked.made.adapter.parent / "features",
        ),
        console(),
    )

    assert made is not None
    ours = made.trained["all"].decoder
    name = "mask_decoder.mask_tokens.weight"
    points, base = start.tensors("points")[name], sam_of(lite).state_dict()[name].numpy()
    assert np.abs(ours[name] - points).max() < 0.1 * np.abs(base - points).max()


def test_the_start_answers_what_training_made_no_better(walked: Walked, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned.safetensors"
    shutil.copy(walked.made.adapter, tuned)
    start, copy = (read_adapter(path, PLAIN_BASE) for path in (walked.made.adapter, tuned))
    gain = {"better": (0.1, 0.2), "equal": (-0.1, 0.1), "worse": (-0.2, -0.1)}

    def judge_as(kind: PromptKind, says: str) -> Judgment:
        low, high = gain[says]
        return Judgment(kind, 0.5, 0.5, Estimate((low + high) / 2, low, high, 9, 3))

    judgments = [
        judge_as(PromptKind.BOX, "better"),
        judge_as(PromptKind.POINT, "worse"),
        judge_as(PromptKind.POINTS, "better"),
        judge_as(PromptKind.BOX_POINTS, "better"),
        judge_as(PromptKind.OUTLINE, "equal"),
    ]
    kept = keep_start(start, copy, judgments)

    assert kept == [PromptKind.POINT, PromptKind.OUTLINE, PromptKind.OUTLINE_POINTS]
    written = read_adapter(tuned, PLAIN_BASE)
    assert {kind: route.decoder for kind, route in written.card.routes.items()} == {
        PromptKind.BOX: "boxes",
        PromptKind.POINT: "start-points",
        PromptKind.POINTS: "points",
        PromptKind.BOX_POINTS: "points",
        PromptKind.OUTLINE: "start-boxes",
        PromptKind.OUTLINE_POINTS: "start-points",
    }
    assert written.card.routes[PromptKind.POINTS].second_pass is SecondPass.OWN_MASK
    for name in ("boxes", "points"):
        for tensor, values in start.tensors(name).items():
            np.testing.assert_array_equal(written.tensors(f"start-{name}")[tensor], values)


def test_a_start_that_training_made_no_better_is_all_that_is_kept(
    walked: Walked, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned.safetensors"
    shutil.copy(walked.made.adapter, tuned)
    start, copy = (read_adapter(path, PLAIN_BASE) for path in (walked.made.adapter, tuned))

    assert keep_start(start, copy, []) == list(PromptKind)

    written = read_adapter(tuned, PLAIN_BASE)
    assert set(written.card.decoders) == {"start-boxes", "start-points"}
    assert resolve(ModelSpec(adapter=tuned, device="cpu", backend="torch")).load() is not None


def test_a_run_from_another_start_does_not_go_on(walked: Walked, tmp_path: Path) -> None:
    request = TrainRequest(
        walked.export,
        tmp_path / "mine.safetensors",
        recipe=ROUTED,
        model=ModelSpec(adapter=walked.made.adapter, device="cpu"),
        run=walked.made.adapter.with_suffix(".training"),  # from the bare base
        cache=walked.made.adapter.parent / "features",
        only="points",
    )

    with pytest.raises(AdapterError, match="of a run with other settings or data"):
        run_train(request, console())


def test_a_second_training_of_the_same_run_is_refused_and_touches_nothing(walked: Walked) -> None:
    run = walked.made.adapter.with_suffix(".training")
    request = TrainRequest(
        walked.export,
        walked.made.adapter.with_name("second.safetensors"),
        recipe=ROUTED,
        model=ModelSpec(adapter=None, device="cpu"),
        run=run,
        cache=walked.made.adapter.parent / "features",
    )
    before = contents(run)

    with (
        hold_folders([run / "points"], DistributedContext(torch.device("cpu"))),
        pytest.raises(OutputError, match=r"Another training is writing .*points right now: wait"),
    ):
        run_train(request, console())

    assert contents(run) == before


def test_an_adapter_to_start_from_that_is_not_there_is_named(
    walked: Walked, tmp_path: Path
) -> None:
    model = ModelSpec(adapter=tmp_path / "none.safetensors")
    request = TrainRequest(walked.export, tmp_path / "mine.safetensors", model=model)

    with pytest.raises(AdapterError, match=r"no adapter at .*none\.safetensors"):
        run_train(request, console())


CROSSED = ONE_DECODER.model_copy(update={"cross_validated_below": 3, "views": 4})


def test_few_patients_are_cross_validated_and_the_same_command_goes_on(tmp_path: Path) -> None:
    export, words, again = export_of(tmp_path), console(), console()
    out = tmp_path / "mine.safetensors"

    made = train(export, out, CROSSED, words)
    first = out.read_bytes()
    train(export, out, CROSSED, again)

    assert made is not None
    assert "training is cross-validated: 2 times" in told(words)
    assert "2 images to train on, none left for a test." in told(words)
    assert "No patient is left" not in told(words)
    assert set(read_split(made.split).values()) == {"train"}
    whole = made.trained["all"]
    assert len(whole.folds) == 2
    for name, values in whole.state.items():
        mean = (whole.folds[0].state[name] + whole.folds[1].state[name]) / 2
        torch.testing.assert_close(values, mean)
    assert any((one.state[name] != whole.state[name]).any() for one in whole.folds)
    assert made.report is not None
    assert "step 2" in told(words)
    assert "step 2" not in told(again)  # its checkpoints say that it is over
    assert out.read_bytes() == first


def test_each_object_of_a_cross_validation_is_judged_by_what_did_not_see_it(tmp_path: Path) -> None:
    export, words = export_of(tmp_path), console()

    made = train(
        export,
        tmp_path / "mine.safetensors",
        CROSSED.model_copy(update={"compared_objects": 2}),
        words,
    )

    assert made is not None
    assert re.search(r"Compared with .* on \d objects \(cross-validated: 2 trainings", told(words))
    for fold in (1, 2):
        assert (made.adapter.with_suffix(".training") / f"fold-{fold}.safetensors").is_file()
    assert made.report is not None
    page = made.report.read_text("utf-8")
    assert "Cross-validated: 2 trainings" in page
    assert page.count("Annotated, before and after:") == 6  # three glands in each of two folds


@pytest.mark.walk
def test_a_training_of_minutes_is_measured_before_it_starts(tmp_path: Path) -> None:
    asked = TrainRequest(
        export_of(tmp_path),
        tmp_path / "short.safetensors",
        recipe=ONE_DECODER,
        model=ModelSpec(adapter=None, device="cpu"),
        cache=tmp_path / "features",
        minutes=0.001,
    )
    compared = ONE_DECODER.model_copy(update={"compared_objects": 1})
    enough = replace(asked, out=tmp_path / "mine.safetensors", minutes=600, recipe=compared)
    words, of_enough = console(), console()

    short, made = run_train(asked, words), run_train(enough, of_enough)

    assert short is not None
    assert "0.001 min is too short here." in told(words)
    assert made is not None
    assert "The whole schedule fits into 600 minutes." in told(of_enough)
    assert (made.adapter.with_suffix(".training") / "schedule.json").is_file()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()),
    reason="this PyTorch has no gloo, with which processes on the CPU talk",
)
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs libuv there")
def test_two_processes_train_one_adapter_and_the_first_writes_it(tmp_path: Path) -> None:
    export, out = export_of(tmp_path), tmp_path / "mine.safetensors"
    torchrun = [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes=1", "--nproc_per_node=2"),
        *("--master_addr=127.0.0.1", f"--master_port={free_port()}"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}

    done = subprocess.run(
        [*torchrun, str(Path(training_runs.__file__)), str(export), str(out)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(done.stdout.split("\n")[:2]) == ["rank 0 wrote True", "rank 1 wrote False"]
    adapter = read_adapter(out, PLAIN_BASE)
    assert all(
        torch.isfinite(torch.from_numpy(tensor)).all() for tensor in adapter.tensors("all").values()
    )
