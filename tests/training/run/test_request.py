"""What is checked of a training before anything is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from wsisam_qupath.errors import OptionError
from wsisam_qupath.model.shipped import find_shipped_adapter
from wsisam_qupath.options import DEFAULT_BASE, AdapterChoice, ModelSpec
from wsisam_qupath_training.run.request import TrainRequest, check_request

SHIPPED = find_shipped_adapter(DEFAULT_BASE)


def ask(start: AdapterChoice, out: Path) -> TrainRequest:
    return TrainRequest(Path("data"), out, model=ModelSpec(adapter=start))


@pytest.mark.parametrize("name", ["mine.safetensors", "link.safetensors"])
def test_the_adapter_that_training_starts_from_is_not_written_over(
    tmp_path: Path, name: str
) -> None:
    assert SHIPPED is not None
    start = Path(shutil.copy(SHIPPED, tmp_path / "mine.safetensors"))
    (tmp_path / "link.safetensors").symlink_to(start)

    with pytest.raises(OptionError, match=r"out: .* give the new one another name"):
        check_request(ask(start, tmp_path / name))


@pytest.mark.parametrize("start", ["default", None])
def test_nor_is_the_one_that_ships_which_is_compared_with(start: AdapterChoice) -> None:
    assert SHIPPED is not None

    with pytest.raises(OptionError, match=r"out: .* give the new one another name"):
        check_request(ask(start, SHIPPED))


def test_the_adapter_of_an_earlier_run_may_be_written_again(tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    out.write_bytes(b"as an earlier run left it")

    check_request(ask("default", out))
    check_request(ask(tmp_path / "that is not there.safetensors", out))
