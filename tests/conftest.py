"""What several tests share and what costs seconds to make: once a run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

import wsisam_qupath
from fixtures.models import PLAIN_BASE, load_openvino, load_torch, tissue_rgb, write_random_adapter
from fixtures.qupath_fixtures import qupath
from fixtures.qupath_program import QUICK_JAVA
from wsisam_qupath.files import CACHE_VARIABLE
from wsisam_qupath.inference.backends import Embedding, ImageArray
from wsisam_qupath.inference.backends.openvino_backend import graph_folder
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.model.build import Networks, build_networks, read_state
from wsisam_qupath.model.weights import locate_weights
from wsisam_qupath.slide import Slide, open_slide
from wsisam_qupath.slide.pyramid import write_pyramid

__all__ = ["qupath"]

# A machine that is busy with other work must not decide a test.
settings.register_profile("any time", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any time")

_SLOW_FIXTURES = {"lite_state", "qupath", "plain_openvino", "plain_torch", "graphs"}
"""Each loads a network or starts QuPath, which takes seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a network or QuPath as slow, and run the files that hold such tests first.

    Processes share the tests by file, so that none must begin a long one last. Of the slow files,
    those with few tests are whole stories, and come first.
    """
    for item in items:
        needed = _SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if needed or item.get_closest_marker("qupath"):
            item.add_marker(pytest.mark.slow)
    tests_in = Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, tests_in[item.path]))


def pytest_report_header() -> str:
    return f"tests run against {Path(wsisam_qupath.__file__).parent}"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of this run's own: its processes, and those that they start, share it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "cache"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def quick_java() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if "PAQUO_JAVA_OPTS" not in os.environ:
            patch.setenv("PAQUO_JAVA_OPTS", QUICK_JAVA)
        yield


@pytest.fixture(scope="session")
def lite_state() -> dict[str, torch.Tensor]:
    """The weights of lite-medsam, by the names of their file."""
    return read_state(locate_weights(PLAIN_BASE).path)


@pytest.fixture(scope="session")
def lite(lite_state: dict[str, torch.Tensor]) -> Networks:
    """lite-medsam without an adapter, float32; not to be changed."""
    return build_networks(PLAIN_BASE, lite_state, None)


@pytest.fixture(scope="session")
def adapter_path(tmp_path_factory: pytest.TempPathFactory, lite: Networks) -> Path:
    """A random adapter: boxes to WSI-SAM, points to a decoder of its own, with second passes."""
    path = tmp_path_factory.mktemp("adapter") / "random.safetensors"
    write_random_adapter(path, lite)
    return path


@pytest.fixture(scope="session")
def plain_torch() -> Predictor:
    return load_torch()


@pytest.fixture(scope="session")
def wsi_torch(adapter_path: Path) -> Predictor:
    return load_torch(adapter_path)


@pytest.fixture(scope="session")
def plain_openvino(cache: Path) -> Predictor:
    return load_openvino()


@pytest.fixture(scope="session")
def graphs(cache: Path, plain_openvino: Predictor) -> Path:
    """The exported graphs of lite-medsam."""
    return graph_folder(cache / "openvino", PLAIN_BASE, None)


@pytest.fixture(scope="session")
def wsi_openvino(cache: Path, adapter_path: Path) -> Predictor:
    return load_openvino(adapter_path)


@pytest.fixture(scope="session")
def tissue() -> ImageArray:
    """Colon glands, 512 x 512 x 3."""
    return tissue_rgb()


@pytest.fixture(scope="session")
def patches(tissue: ImageArray) -> tuple[ImageArray, ImageArray]:
    """A concentric pair of 256 x 256 x 3 in the middle of the tissue: HR at 0.5, LR at 1 µm/px."""
    hr = np.ascontiguousarray(tissue[128:384, 128:384])
    means = tissue.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    return hr, means.round().astype(np.uint8)


@pytest.fixture(scope="session")
def torch_embeddings(
    wsi_torch: Predictor, patches: tuple[ImageArray, ImageArray]
) -> list[Embedding]:
    """The pair and the pair the other way round, embedded by PyTorch in one call."""
    hr, lr = patches
    return wsi_torch.backend.embed([[hr, lr], [lr, hr]])


@pytest.fixture(scope="session")
def tissue_path(tmp_path_factory: pytest.TempPathFactory, tissue: ImageArray) -> Path:
    """The tissue as a slide at 0.5 µm/px."""
    path = tmp_path_factory.mktemp("slide") / "tissue.tif"
    write_pyramid(path, tissue, mpp=0.5)
    return path


@pytest.fixture
def tissue_slide(tissue_path: Path) -> Iterator[Slide]:
    with open_slide(tissue_path) as slide:
        yield slide


@pytest.fixture(scope="session")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of one colour, 400 x 400 px at 0.5 µm/px."""
    path = tmp_path_factory.mktemp("slides") / "grey.tif"
    write_pyramid(path, np.full((400, 400, 3), 128, dtype=np.uint8), mpp=0.5)
    return path
