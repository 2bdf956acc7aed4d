"""One training at a time in the folder of a decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wsisam_qupath.errors import OutputError
from wsisam_qupath_training.trainer.distributed import DistributedContext
from wsisam_qupath_training.trainer.run_folder import hold_folders

ALONE = DistributedContext(torch.device("cpu"))


def test_a_folder_is_free_again_once_its_training_has_ended(tmp_path: Path) -> None:
    boxes, points = tmp_path / "run" / "boxes", tmp_path / "run" / "points"

    with (
        hold_folders([boxes, points], ALONE),
        pytest.raises(OutputError, match=r"Another training is writing .*points right now"),
        hold_folders([points], ALONE),
    ):
        pass
    with hold_folders([points], ALONE):
        pass

    assert not list(points.iterdir())


def test_two_decoders_of_a_recipe_are_trained_at_the_same_time(tmp_path: Path) -> None:
    with hold_folders([tmp_path / "boxes"], ALONE), hold_folders([tmp_path / "points"], ALONE):
        assert (tmp_path / "boxes").is_dir() and (tmp_path / "points").is_dir()


def test_the_first_of_several_processes_holds_a_folder_for_all(tmp_path: Path) -> None:
    first, second = (DistributedContext(torch.device("cpu"), rank, 2) for rank in (0, 1))

    with hold_folders([tmp_path], first), hold_folders([tmp_path], second):
        assert (tmp_path / "lock").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")

    with (
        pytest.raises(OutputError, match=r"run.boxes cannot be written \(.*\)\. Choose another"),
        hold_folders([tmp_path / "run" / "boxes"], ALONE),
    ):
        pass
