from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import tifffile
import torch
from PIL import Image

from fixtures.command_line import Answer, annotation, rectangle, run, run_here, write_prompts

BOX = ("--box", "100,100,200,200")
OUTPUT = ("-o", "out.geojson")
BEFORE = b"what stood here before"


@pytest.fixture(scope="module")
def folder(tissue_path: Path, adapter_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide, prompts, an output of an earlier run, and much that is broken."""
    folder = tmp_path_factory.mktemp("bad input")
    shutil.copy(tissue_path, folder / "slide.tif")
    shutil.copy(adapter_path, folder / "good.safetensors")
    (folder / "out.geojson").write_bytes(BEFORE)
    (folder / "folder").mkdir()
    (folder / "empty.svs").touch()
    (folder / "text.svs").write_text("This is no slide.\n" * 100, encoding="utf-8")
    whole = tissue_path.read_bytes()
    (folder / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "stub.tif").write_bytes(whole[:100])
    _write_with_broken_tiles(folder / "holed.tif", tissue_path)
    Image.new("RGB", (300, 300)).save(folder / "no-scale.png")
    write_prompts(folder / "good.geojson", [rectangle("gland", (100, 100, 200, 200))])
    line = annotation("a line", "LineString", [[0, 0], [9, 9]])
    write_prompts(folder / "unusable.geojson", [line, {"type": "Feature", "id": "nothing"}])
    write_prompts(folder / "off.geojson", [rectangle("far off", (9000, 9000, 9100, 9100))])
    write_prompts(folder / "evil.geojson", [{"type": "Feature", "id": "\x1b[31m\n" + "x" * 9000}])
    for name, text in (
        ("text.geojson", "no JSON\n"),
        ("other.geojson", '{"type": "Topology"}'),
        ("number.geojson", "42"),
        ("deep.geojson", "[" * 200_000 + "]" * 200_000),
        ("zero.geojson", ""),
        ("adapter.safetensors", "no adapter"),
        ("weights.pth", "no weights"),
    ):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "latin.geojson").write_bytes('{"type": "Größe"}'.encode("latin-1"))
    return folder


def _write_with_broken_tiles(path: Path, whole: Path) -> None:
    """A slide whose structure is sound, and whose pixels are not."""
    content = bytearray(whole.read_bytes())
    with tifffile.TiffFile(whole) as tiff:
        for page in tiff.pages:
            for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
                content[offset : offset + size] = b"\xff" * size
    path.write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, and in those in it."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_cured(answer: Answer, fix: str) -> None:
    assert answer.code == 2
    assert answer.out == ""
    assert answer.words[0].startswith("wsisam-qupath: ")
    assert len(answer.words) <= 2
    assert max(map(len, answer.words)) <= 1100
    assert "Traceback" not in answer.err
    assert fix in answer.err


SLIDES = [
    ("missing.svs", "missing.svs does not exist. Check where the slide is now."),
    ("cut.tif", "Copy it again from its source"),
    ("stub.tif", "Copy it again from its source"),
    ("holed.tif", "The file is damaged: copy it again from its source."),
    ("folder", "folder is a folder or a device. Pass a slide file"),
    ("empty.svs", "empty.svs is empty. Copy it again from its source."),
    ("text.svs", "in no format that can be read here"),
    ("good.geojson", "in no format that can be read here"),
    ("https://example.org/slide.svs", "Download it and pass its path."),
    ("", "Pass a path."),
    ("no-scale.png", "no-scale.png states no pixel size: give its µm per pixel as mpp"),
    *(
        (
            f"no-scale.png --mpp {mpp}",
            "out of range: give µm per pixel, from 0.01 to 100, e.g. 0.25",
        )
        for mpp in ("0", "-1", "nan", "inf", "1e9")
    ),
    ("no-scale.png --mpp half", "'half' is not a valid float"),
]

PROMPTS = [
    ("missing.geojson", "There is no file missing.geojson: check the name and the folder."),
    ("folder", "name a file in it"),
    ("zero.geojson", "zero.geojson is not JSON"),
    ("text.geojson", "Export it from QuPath again, as .geojson."),
    ("other.geojson", "In QuPath use File > Export objects as GeoJSON."),
    ("number.geojson", "In QuPath use File > Export objects as GeoJSON."),
    ("deep.geojson", "deep.geojson is nested too deep. Export it from QuPath again, as .geojson"),
    ("latin.geojson", "latin.geojson is not UTF-8 text"),
    ("slide.tif", "slide.tif is not UTF-8 text"),
    ("unusable.geojson", "2 skipped, first a line (a straight line measures, and marks no object"),
    ("off.geojson", "1 skipped, first far off (it lies outside of the slide)"),
    ("evil.geojson", "1 skipped, first \ufffd[31m\ufffdxxx"),
    (f"{'x' * 300}.geojson", "xxx.geojson"),
    ("good.geojson --box 1,2,3,4", "PROMPTS: cannot be combined with --box"),
    ("", "PROMPTS: there is nothing to outline: give a GeoJSON file, --box or --point."),
    ("--box 1,2,3", "'1,2,3' is not of the form x0,y0,x1,y1, in level-0 pixels"),
    ("--box 1,2,3,4,5", "is not of the form x0,y0,x1,y1"),
    ("--box a,b,c,d", "is not of the form x0,y0,x1,y1"),
    ("--box nan,0,9,9", "is not of the form x0,y0,x1,y1"),
    ("--box 10,10,10,90", "it has no area"),
    ("--box 0,0,1e300,9", "its coordinates lie beyond any slide"),
    ("--point 1;2", "'1;2' is not of the form x,y, in level-0 pixels"),
    ("--negative 30,30", "near no positive point"),
]

OPTIONS = [
    ("--points some", "'some' is not one of 'together', 'each'"),
    ("--as cell", "'cell' is not one of 'detection', 'annotation'"),
    ("--simplify -1", "--simplify: -1 is out of range: give 0 or more."),
    ("--simplify nan", "--simplify: nan is out of range: give 0 or more."),
    ("--min-area -0.5", "--min-area: -0.5 is out of range: give 0 or more."),
    ("--min-area inf", "--min-area: inf is out of range: give 0 or more."),
    ("--object-size 0", "--object-size: 0 is not a positive size, e.g. 10 µm."),
    ("--object-size nan", "--object-size: nan is not a positive size"),
    ("--base sam", "--base: 'sam' is none of lite-medsam, mobile-sam,"),
    ("--base mobile-sam", "Run `wsisam-qupath weights mobile-sam` to download them."),
    ("--weights weights.pth", "Name an unchanged copy of the weights of lite-medsam."),
    ("--weights missing.pth", "Name an unchanged copy of the weights of lite-medsam."),
    ("--weights folder", "Name an unchanged copy of the weights of lite-medsam."),
    ("--adapter missing.safetensors", "check the path, or choose none as the adapter."),
    (f"--adapter {'x' * 300}", "check the path, or choose none as the adapter."),
    ("--adapter folder", "check the path, or choose none as the adapter."),
    ("--adapter adapter.safetensors", "Copy or download it again."),
    (
        "--adapter good.safetensors --base medsam",
        "Choose the base lite-medsam, or another adapter.",
    ),
    ("--device tpu", "--device: 'tpu' is none of auto, cpu, cuda, cuda:1 … and mps."),
    ("--device cuda:99", "Choose the device cpu, or run `wsisam-qupath doctor` to see why."),
    ("--device cuda --backend openvino", "--backend: openvino computes on the CPU only"),
    ("--backend onnx", "--backend: 'onnx' is none of auto, torch and openvino."),
    ("--frobnicate", "segment --help`."),
]

OUTPUTS = [
    ("-o missing/out.geojson", "create it, or name another one."),
    ("-o folder", "folder is a folder: name a file in it."),
    ("-o slide.tif/out.geojson", "There is no folder"),
    ("-o slide.tif", "--output: slide.tif would replace the slide: choose another file."),
    ("-o good.geojson", "--output: good.geojson would replace the prompts: choose another file."),
    ("--overlay missing/seen.png", "create it, or name another one."),
    ("--overlay folder", "folder is a folder: name a file in it."),
    ("--overlay ./slide.tif", "would replace the slide: choose another file."),
    ("--overlay good.geojson", "would replace the prompts: choose another file."),
    ("-o new.geojson --overlay new.geojson", "would replace the outlines: choose another file."),
]


def names(cases: list[tuple[str, str]]) -> list[str]:
    return [arguments or "nothing" for arguments, _ in cases]


@pytest.fixture
def untouched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Works in the folder, and sees to it that nothing is changed there or left behind."""
    monkeypatch.chdir(folder)
    before = contents(folder)
    yield
    assert contents(folder) == before


@pytest.mark.parametrize(("slide", "fix"), SLIDES, ids=names(SLIDES))
def test_slides_that_cannot_be_used_are_refused(
    slide: str, fix: str, untouched: None, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = slide.split() or [""]

    assert_cured(run_here(capfd, "segment", *arguments, *BOX, *OUTPUT), fix)


@pytest.mark.parametrize(("prompts", "fix"), PROMPTS, ids=names(PROMPTS))
def test_prompts_that_cannot_be_used_are_refused(
    prompts: str, fix: str, untouched: None, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", "slide.tif", *prompts.split(), *OUTPUT]

    assert_cured(run_here(capfd, *arguments), fix)


@pytest.mark.parametrize(("options", "fix"), OPTIONS, ids=names(OPTIONS))
def test_options_out_of_their_range_are_refused(
    options: str, fix: str, untouched: None, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", "slide.tif", *BOX, *options.split(), *OUTPUT]

    assert_cured(run_here(capfd, *arguments), fix)


@pytest.mark.parametrize(("outputs", "fix"), OUTPUTS, ids=names(OUTPUTS))
def test_outputs_that_cannot_be_written_are_refused(
    outputs: str, fix: str, untouched: None, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", "slide.tif", "good.geojson", *outputs.split()]

    assert_cured(run_here(capfd, *arguments), fix)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_cuda_is_refused_where_there_is_none(
    untouched: None, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", "slide.tif", *BOX, *OUTPUT, "--device", "cuda"]

    assert_cured(run_here(capfd, *arguments), "PyTorch sees 0 CUDA devices here")


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[Path]:
    """A folder that may not be written, with a file that may not either."""
    file = tmp_path / "file"
    file.write_bytes(BEFORE)
    file.chmod(stat.S_IRUSR)
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.name == "nt" or os.access(tmp_path, os.W_OK):
        pytest.skip("Windows, and root everywhere, write to protected folders")
    yield tmp_path
    tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("option", ["-o", "--overlay"])
def test_write_protected_places_are_refused(
    option: str, protected: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", str(folder / "slide.tif"), *BOX, option]

    assert_cured(run_here(capfd, *arguments, str(protected / "file")), "is write-protected")
    assert_cured(run_here(capfd, *arguments, str(protected / "new")), "is write-protected")
    assert (protected / "file").read_bytes() == BEFORE


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ("segment holed.tif --box 100,100,200,200 -o out.geojson", "The file is damaged"),
        ("segment slide.tif deep.geojson -o out.geojson", "nested too deep"),
        ("segment slide.tif good.geojson --simplify x", "See `"),
        ("weights sam", "BASE: 'sam' is none of"),
        ("demo --out slide.tif", "'slide.tif' is a file"),
        ("sgment slide.tif", "Did you mean 'segment'?"),
    ],
)
def test_a_process_of_its_own_says_no_more(
    arguments: str, fix: str, untouched: None, folder: Path
) -> None:
    assert_cured(run(*arguments.split(), cwd=folder), fix)


def test_without_arguments_the_help_is_on_stderr() -> None:
    answer = run()

    assert (answer.code, answer.out) == (2, "")
    assert "wsisam-qupath doctor" in answer.err


def test_one_bad_feature_does_not_keep_the_others_from_being_answered(
    folder: Path, tmp_path: Path
) -> None:
    line = annotation("a line", "LineString", [[0, 0], [9, 9]])
    mixed = write_prompts(tmp_path / "p.geojson", [line, rectangle("gland", (262, 0, 470, 302))])

    answer = run("segment", folder / "slide.tif", mixed)

    assert answer.code == 0
    assert len(json.loads(answer.out)["features"]) == 1
    assert answer.words[0].startswith("Skipped a line: ")
