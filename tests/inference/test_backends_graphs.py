"""Graphs for OpenVINO are exported once, kept, and made anew where they are damaged."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fixtures.command_line import run_python
from fixtures.models import PLAIN_BASE, Patches
from fixtures.workers import answer, copy_graphs, export_together
from wsisam_qupath.errors import DeviceError
from wsisam_qupath.files import CACHE_VARIABLE
from wsisam_qupath.inference.backends.openvino_backend import OpenVinoBackend, graph_folder
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.model.adapter import read_adapter
from wsisam_qupath.options import ModelSpec

pytestmark = [pytest.mark.slow, pytest.mark.walk]


def test_from_the_second_start_on_pytorch_is_not_imported(
    graphs: Path, tmp_path: Path, patches: Patches
) -> None:
    np.save(tmp_path / "patch.npy", patches[0])
    code = """
import sys, numpy as np
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.options import ModelSpec
from fixtures.workers import answer
predictor = resolve(ModelSpec(adapter=None, device="cpu", backend="openvino")).load()
assert answer(predictor.backend, np.load(sys.argv[1])).shape == (256, 256)
print(*sorted({"torch", "torchvision", "timm", "segment_anything"} & set(sys.modules)))
"""
    script = tmp_path / "start.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[1])!r})\n{code}")

    done = run_python(script, tmp_path / "patch.npy")

    assert (done.code, done.out.strip()) == (0, ""), done.err


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def scramble(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def compiled_in(folder: Path) -> Path:
    """The only folder of compiled graphs: those of one precision."""
    (found,) = folder.glob("compiled-*")
    return found


def uncompiled(folder: Path) -> Path:
    """A folder of graphs without their compiled form, which answers for them."""
    shutil.rmtree(compiled_in(folder))
    return folder


def truncate_compiled(folder: Path) -> None:
    for blob in compiled_in(folder).iterdir():
        truncate(blob)


def scramble_compiled(folder: Path) -> None:
    for blob in compiled_in(folder).iterdir():
        scramble(blob)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def block_compiled(folder: Path) -> None:
    compiled = compiled_in(folder)
    shutil.rmtree(compiled)
    compiled.write_text("no folder")


@pytest.mark.parametrize(
    ("damage", "exports"),
    [
        (lambda folder: truncate(folder / "encoder.xml"), 1),
        (lambda folder: truncate(uncompiled(folder) / "encoder.bin"), 1),
        (lambda folder: truncate(folder / "sam.decoder.xml"), 1),
        (lambda folder: truncate(uncompiled(folder) / "sam.decoder.bin"), 1),
        (lambda folder: (uncompiled(folder) / "sam.decoder.bin").unlink(), 1),
        (lambda folder: truncate(folder / "encoder.bin"), 0),
        (empty, 1),
        (shutil.rmtree, 1),
        (truncate_compiled, 0),
        (scramble_compiled, 0),
        (block_compiled, 0),
    ],
    ids=[
        "encoder.xml truncated",
        "encoder.bin truncated",
        "decoder.xml truncated",
        "decoder.bin truncated",
        "decoder.bin gone",
        "encoder.bin truncated, compiled whole",
        "empty folder",
        "no folder",
        "compiled truncated",
        "compiled scrambled",
        "compiled no folder",
    ],
)
def test_damaged_graphs_are_made_anew_as_far_as_need_be(
    graphs: Path,
    tmp_path: Path,
    plain_openvino: Predictor,
    patches: Patches,
    damage: Callable[[Path], None],
    exports: int,
) -> None:
    assert isinstance(plain_openvino.backend, OpenVinoBackend)
    expected = answer(plain_openvino.backend, patches[0])
    folder = graph_folder(tmp_path, PLAIN_BASE, None)
    shutil.copytree(graphs, folder)
    exported: list[Path] = []

    def export(target: Path) -> None:
        exported.append(target)
        copy_graphs(graphs, target)

    answer(OpenVinoBackend(PLAIN_BASE, None, tmp_path, export), patches[0])  # compiles them there
    damage(folder)

    backend = OpenVinoBackend(PLAIN_BASE, None, tmp_path, export)

    assert np.array_equal(answer(backend, patches[0]), expected)
    assert len(exported) == exports
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_what_was_compiled_for_other_floats_is_not_taken(
    graphs: Path, tmp_path: Path, plain_openvino: Predictor, patches: Patches
) -> None:
    def export(target: Path) -> None:
        copy_graphs(graphs, target)

    assert isinstance(plain_openvino.backend, OpenVinoBackend)
    OpenVinoBackend(PLAIN_BASE, None, tmp_path, export, precision="f32")

    found = answer(OpenVinoBackend(PLAIN_BASE, None, tmp_path, export), patches[0])

    assert np.array_equal(found, answer(plain_openvino.backend, patches[0]))


def test_graphs_that_stay_damaged_name_their_folder(graphs: Path, tmp_path: Path) -> None:
    def export(target: Path) -> None:
        copy_graphs(graphs, target)
        truncate(target / "encoder.bin")

    with pytest.raises(
        DeviceError, match=r"cannot use .* Delete that folder, or choose the backend"
    ):
        OpenVinoBackend(PLAIN_BASE, None, tmp_path, export)


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def export(target: Path) -> None:
        (target / "encoder.xml").write_text("half of it")
        raise DeviceError("no more")

    with pytest.raises(DeviceError, match="no more"):
        OpenVinoBackend(PLAIN_BASE, None, tmp_path, export)

    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_names_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))

    with pytest.raises(DeviceError, match=rf"cannot be kept in .*file.* {CACHE_VARIABLE}"):
        resolve(ModelSpec(adapter=None, device="cpu", backend="openvino")).load()


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    def export(target: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DeviceError, match=r"\(No space left on device\)\. Make room there"):
        OpenVinoBackend(PLAIN_BASE, None, tmp_path, export)


def test_two_processes_that_export_at_once_both_answer(
    graphs: Path, tmp_path: Path, plain_openvino: Predictor, patches: Patches
) -> None:
    np.save(tmp_path / "patch.npy", patches[0])
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    arguments = (barrier, answers, graphs, tmp_path / "openvino", tmp_path / "patch.npy")
    processes = [context.Process(target=export_together, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()

    found = [answers.get(timeout=240) for _ in processes]
    for process in processes:
        process.join()

    assert isinstance(plain_openvino.backend, OpenVinoBackend)
    expected = answer(plain_openvino.backend, patches[0])
    assert all(np.array_equal(logits, expected) for logits in found)
    assert len(list((tmp_path / "openvino").iterdir())) == 1


def test_graphs_of_other_weights_or_another_adapter_lie_elsewhere(
    tmp_path: Path, adapter_path: Path
) -> None:
    adapter = read_adapter(adapter_path, PLAIN_BASE)
    other = replace(PLAIN_BASE, sha256="0" * 64)

    folders = {
        graph_folder(tmp_path, PLAIN_BASE, None),
        graph_folder(tmp_path, PLAIN_BASE, adapter),
        graph_folder(tmp_path, PLAIN_BASE, replace(adapter, sha256="1" * 64)),
        graph_folder(tmp_path, other, None),
    }

    assert len(folders) == 4
    assert {folder.parent for folder in folders} == {tmp_path}
