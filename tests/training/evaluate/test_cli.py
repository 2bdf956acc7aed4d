"""The command line of evaluate, with a real model on tissue by formula."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath_training.cli.evaluate import evaluate_command

pytestmark = [pytest.mark.slow, pytest.mark.walk]


@pytest.fixture
def glands(tmp_path: Path) -> Path:
    """An image with two dark discs, and its label mask."""
    folder = tmp_path / "glands"
    folder.mkdir()
    y, x = np.mgrid[:256, :320]
    labels = np.zeros((256, 320), dtype=np.uint8)
    labels[np.hypot(x - 90, y - 100) < 45] = 1
    labels[np.hypot(x - 230, y - 150) < 55] = 2
    rgb = np.where(labels[..., None] > 0, (130, 60, 150), (235, 205, 225)).astype(np.uint8)
    Image.fromarray(rgb).save(folder / "a.png")
    Image.fromarray(labels).save(folder / "a_instances.png")
    return folder


@pytest.mark.walk
def test_a_base_is_measured_against_an_adapter(
    glands: Path,
    adapter_path: Path,
    plain_openvino: Predictor,
    wsi_openvino: Predictor,
    tmp_path: Path,
) -> None:
    result = tmp_path / "result.json"

    ran = CliRunner().invoke(
        evaluate_command,
        [
            *(str(glands), "--mpp", "1", "--kinds", "box,points,noc", "--limit", "1"),
            *("--adapter", str(adapter_path), "--compare", "none", "--json", str(result)),
            *("--device", "cpu", "--backend", "openvino"),
        ],
        catch_exceptions=False,
    )

    assert ran.exit_code == 0
    assert "glands: 1 object, 1 patient" in ran.stdout
    assert "gain of random" in ran.stdout
    record = json.loads(result.read_text())
    assert [model["name"] for model in record["models"]] == ["lite-medsam alone", "random"]
    box = {row["model"]: row["dice"] for row in record["answers"] if row["prompt"] == "box"}
    assert box["lite-medsam alone"] > 0.9
    assert all(0 < len(run["ious"]) <= 20 for run in record["clicks"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--scale", "large"), "'large' is not truth, median, none"),
        (("--protocol", "other"), "'other' is not one of"),
        (("--window-mpp", "2"), "it goes with --protocol patch"),
    ],
)
def test_wrong_options_are_usage_errors(
    glands: Path, option: tuple[str, str], message: str
) -> None:
    ran = CliRunner().invoke(evaluate_command, [str(glands), "--mpp", "1", *option])

    assert ran.exit_code == 2
    assert message in ran.output


def test_windows_can_be_of_any_scale(glands: Path) -> None:
    ran = CliRunner().invoke(
        evaluate_command,
        [
            *(str(glands), "--mpp", "1", "--kinds", "box", "--limit", "1", "--adapter", "none"),
            *("--protocol", "patch", "--window-mpp", "2", "--device", "cpu"),
        ],
        catch_exceptions=False,
    )

    assert "Asked on windows of 2 µm per pixel" in ran.stdout
    assert "No adapter is measured" in ran.stderr
