"""Downloads of open data sets by torch-em's loaders; a package that stands in for it fills folders.

The loaders themselves run where torch-em is installed, on the folders that the tests make.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures.open_sets import SLIDES, write_camelyon, write_open_set
from wsisam_qupath.errors import DeviceError, OutputError, PromptError
from wsisam_qupath_training.sources.open_data import read_open_set
from wsisam_qupath_training.sources.open_download import fetch_open_set
from wsisam_qupath_training.sources.open_sets import OPEN_SETS

STAND_IN = """
from pathlib import Path
from fixtures.open_sets import write_open_set

calls, failure = [], None

def load(name, path, slides=None, **how):
    assert how.pop("download") is True
    calls.append((name, slides, how))
    print("Download successful and checksums agree.")
    Path(path).mkdir(parents=True, exist_ok=True)
    (Path(path) / "half").write_text("begun")
    if failure is not None:
        raise failure
    (Path(path) / "half").unlink()
    write_open_set(Path(path), name, slides)
"""

LOADERS = {
    "camelyon": """
def get_camelyon16_data(path, sample_ids, resolution_level, download):
    load("camelyon16", path, tuple(sample_ids), download=download)
def get_camelyon17_data(path, sample_ids, resolution_level, download):
    load("camelyon17", path, tuple(sample_ids), download=download)
""",
    "crc_epithelium": """
def get_crc_epithelium_data(path, stains, download):
    load("crc_epithelium", path, stains=stains, download=download)
""",
    "gleason2019": """
def get_gleason2019_data(path, split, download):
    if split == "test":
        load("gleason2019", path, download=download)
""",
    "hashi": """
def get_hashi_data(path, download):
    load("hashi", path, download=download)
""",
    "ocelot": """
def get_ocelot_data(path, download):
    load("ocelot", path, download=download)
""",
    "tevg": """
def get_tevg_data(path, fold, download):
    load("tevg", path, fold=fold, download=download)
""",
    "tiger": """
def get_tiger_data(path, download):
    load("tiger", path, download=download)
""",
}


def _forget_torch_em() -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == "torch_em"]:
        del sys.modules[name]


@pytest.fixture
def torch_em(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Stands in for torch-em: its loaders write folders by formula, or fail as they are told."""
    package = tmp_path / "stand-in" / "torch_em" / "data" / "datasets" / "histopathology"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "stand_in.py").write_text(STAND_IN, encoding="utf-8")
    for name, source in LOADERS.items():
        text = f"from .stand_in import load\n{source}"
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    _forget_torch_em()
    monkeypatch.syspath_prepend(str(tmp_path / "stand-in"))
    from torch_em.data.datasets.histopathology import stand_in

    yield stand_in
    _forget_torch_em()


def fetch(folder: Path, name: str, slides: tuple[str, ...] | None = None) -> None:
    known = OPEN_SETS[name]
    wanted = SLIDES[name] if known.has_slides and slides is None else slides or ()
    fetch_open_set(folder, name, known, slides=wanted)


@pytest.mark.parametrize("name", OPEN_SETS)
def test_each_set_is_downloaded_once_and_read_without_torch_em(
    tmp_path: Path, torch_em: SimpleNamespace, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(tmp_path / "data" / name, name)
    out, err = capsys.readouterr()

    assert out == ""
    what = SLIDES[name][0] + " of " + name if name in SLIDES else name
    assert f"Downloading {what} with torch-em into {tmp_path / 'data' / name}, once." in err
    assert f"License: {OPEN_SETS[name].license}." in err
    count = len(torch_em.calls)
    fetch(tmp_path / "data" / name, name)
    assert len(torch_em.calls) == count
    assert not (tmp_path / "data" / f"{name}.part").exists()
    found = read_open_set(tmp_path / "data" / name, OPEN_SETS[name], dataset=name, mpp=4.0)
    assert any(image.truths for image in found.images)


def test_slides_that_are_there_are_not_downloaded_again(
    tmp_path: Path, torch_em: SimpleNamespace
) -> None:
    write_open_set(tmp_path / "camelyon17", "camelyon17", ("patient_004_node_4",))

    fetch(tmp_path / "camelyon17", "camelyon17")

    assert torch_em.calls == [("camelyon17", ("patient_009_node_1",), {})]
    found = read_open_set(tmp_path / "camelyon17", OPEN_SETS["camelyon17"], dataset="a")
    assert [image.name for image in found.images] == list(SLIDES["camelyon17"])


@pytest.mark.parametrize("name", OPEN_SETS)
@pytest.mark.parametrize(
    "failure",
    [
        ConnectionError("no route to the server"),
        RuntimeError("The checksum of the download does not match"),
        OSError(28, "No space left on device"),
    ],
)
def test_a_download_that_fails_leaves_nothing_that_could_be_read(
    tmp_path: Path, torch_em: SimpleNamespace, name: str, failure: Exception
) -> None:
    torch_em.failure = failure

    with pytest.raises(
        PromptError, match=r"The download of .* failed .*run the command again"
    ) as told:
        fetch(tmp_path / name, name)

    assert str(failure) in str(told.value)
    assert not (tmp_path / name).exists()
    assert (tmp_path / f"{name}.part").exists() == OPEN_SETS[name].keeps_parts

    torch_em.failure = None
    fetch(tmp_path / name, name)
    assert (tmp_path / name).is_dir()
    assert not (tmp_path / name / "half").exists()


def test_what_a_killed_download_left_is_not_taken_for_the_set(
    tmp_path: Path, torch_em: SimpleNamespace
) -> None:
    (tmp_path / "tevg.part" / "fold_1" / "train").mkdir(parents=True)
    (tmp_path / "tevg.part" / "fold_1" / "train" / "half.jpg").touch()

    fetch(tmp_path / "tevg", "tevg")

    assert not (tmp_path / "tevg" / "fold_1" / "train" / "half.jpg").exists()


def test_without_torch_em_one_sentence_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget_torch_em()
    monkeypatch.setitem(sys.modules, "torch_em", None)

    with pytest.raises(DeviceError) as told:
        fetch(tmp_path / "tevg", "tevg")

    assert str(told.value).startswith("Downloading open data needs the package torch_em. Run `")
    assert 'install "wsisam-qupath[open-data]"`.' in str(told.value)
    assert not (tmp_path / "tevg").exists()


def test_a_package_that_torch_em_lacks_is_named(tmp_path: Path, torch_em: SimpleNamespace) -> None:
    torch_em.failure = ModuleNotFoundError("No module named 'zarr'", name="zarr")

    with pytest.raises(DeviceError, match="Downloading open data needs the package zarr"):
        fetch(tmp_path / "camelyon16", "camelyon16")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, torch_em: SimpleNamespace) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match=r"cannot be written .* Name another folder"):
        fetch(tmp_path / "file" / "tevg", "tevg")


LOAD = """
import json, sys
from torch_em.data.datasets.histopathology import camelyon, gleason2019, ocelot, tevg, tiger

at = sys.argv[1]
print(json.dumps({
    "camelyon16": camelyon.get_camelyon16_paths(f"{at}/camelyon16"),
    "camelyon17": camelyon.get_camelyon17_paths(f"{at}/camelyon17"),
    "gleason2019": [
        path
        for part in ("train", "val", "test")
        for path in gleason2019.get_gleason2019_paths(f"{at}/gleason2019", part)[0]
    ],
    "ocelot": ocelot.get_ocelot_paths(f"{at}/ocelot")[0],
    "tevg": [
        path
        for part in ("train", "test")
        for path in tevg.get_tevg_paths(f"{at}/tevg", 1, part)[0]
    ],
    "tiger": tiger.get_tiger_paths(f"{at}/tiger")[0],
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torch_em") is None, reason="needs torch-em")
def test_torch_ems_own_loaders_find_the_same_images(tmp_path: Path) -> None:
    """So that the folders by formula are laid out as the loaders lay them out."""
    for name in ("gleason2019", "ocelot", "tevg", "tiger"):
        write_open_set(tmp_path / name, name)
    for name, slides in SLIDES.items():
        for slide in slides:  # large enough for the copy that torch-em makes
            write_camelyon(tmp_path / name, name.removeprefix("camelyon"), slide, factor=3)
        rows = [f"0 images/{slide}.tif\n0 masks/{slide}_mask.tif\n" for slide in slides]
        (tmp_path / name / f"{name}_checksums.md5").write_text("".join(rows))

    # In a process of its own: it leaves files open, and others here stand in for it.
    command = [sys.executable, "-W", "ignore", "-c", LOAD, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)

    for name, paths in json.loads(done.stdout.splitlines()[-1]).items():
        found = read_open_set(tmp_path / name, OPEN_SETS[name], dataset=name, mpp=1.0)
        stems = sorted(Path(path).stem.removesuffix("_level0") for path in paths)
        assert stems == sorted(Path(image.slide.location).stem for image in found.images)
