"""What import-linter cannot say of imports: how light a start is. Its rules: pyproject.toml."""

import subprocess
import sys

import pytest

HEAVY = ("numpy", "torch", "openvino", "shapely", "rich", "pydantic", "PIL", "openslide")
TORCH = ("torch", "torchvision", "timm", "segment_anything")

COMMAND_LINE = ("wsisam_qupath", "wsisam_qupath.cli.main")
"""What `--help` imports."""

WITHOUT_TORCH = (
    "wsisam_qupath.geojson",
    "wsisam_qupath.inference.executors",
    "wsisam_qupath.inference.loading",
    "wsisam_qupath.inference.tasks",
    "wsisam_qupath.model.adapter",
    "wsisam_qupath.model.weights",
    "wsisam_qupath.project.batch.command",
    "wsisam_qupath.qupath.jvm.process",
    "wsisam_qupath.report.writing",
    "wsisam_qupath.server.command",
)
"""PyTorch takes seconds to import, and only some of the work needs it."""


BACKEND = ("wsisam_qupath.inference.backends.openvino_backend",)
CONVERTER = ("openvino.tools.ovc", "openvino_telemetry.main")
"""A quarter of OpenVINO's import, which only an export needs, and what would call home."""


def imported_after(modules: tuple[str, ...], names: tuple[str, ...]) -> dict[str, list[str]]:
    """Which of some packages a new process has imported after each of these modules, in turn."""
    probe = (
        "import importlib, sys\n"
        f"for module in {modules!r}:\n"
        "    importlib.import_module(module)\n"
        f"    print(module, *(name for name in {names!r} if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return {module: found for module, *found in map(str.split, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "packages"),
    [(COMMAND_LINE, HEAVY), (WITHOUT_TORCH, TORCH), (BACKEND, CONVERTER)],
    ids=["the command line", "what needs no PyTorch", "what runs graphs"],
)
def test_heavy_packages_are_imported_when_they_are_needed(
    modules: tuple[str, ...], packages: tuple[str, ...]
) -> None:
    assert imported_after(modules, packages) == {module: [] for module in modules}
