"""What import-linter cannot say of imports: how light a start is. Its rules: pyproject.toml."""

import subprocess
import sys

import pytest

FLOORS = (
    ("errors", "printing", "version", "options", "protocol"),
    ("geometry", "validity", "uri", "files"),
    ("json_files", "safe_folder", "coverage", "prompts"),
    ("console",),
    ("polygons", "grouping", "planning", "results"),
    ("slide", "geojson"),
    ("pyramid", "overlay", "tokens", "authorship", "manifest", "catch", "qupath.values"),
    ("project",),
    ("qupath",),
    ("model.bases", "model.card", "model.download", "model.prompted_sam"),
    ("model.weights", "model.adapter", "model.tiny_vit", "model.decoders"),
    ("model.encoder", "model.shipped"),
    ("model.build",),
    ("backends", "backends.openvino_runtime"),
    ("backends.torch_backend", "backends.openvino_backend", "backends.openvino_export"),
    ("predictor",),
    ("loading",),
    ("engine", "doctor"),
    ("work", "weights_command"),
    ("segment_command",),
    ("batch", "create", "export", "restore_command", "setup_command"),
    ("server",),
    ("demo",),
    ("project_cli",),
    ("cli",),
    ("__main__", "__init__"),
)
"""From the ground up. A module imports from the floors below it; packages of one floor are one."""

WITH_TORCH = {
    "model.tiny_vit",
    "model.prompted_sam",
    "model.decoders",
    "model.encoder",
    "model.build",
    "backends.torch_backend",
    "backends.openvino_export",
}
"""The modules that may import PyTorch, or what stands on it, when they are imported themselves."""

TORCH_PACKAGES = {"torch", "torchvision", "timm", "segment_anything"}
HEAVY = ("numpy", "torch", "openvino", "shapely", "rich", "pydantic", "PIL", "openslide")
TORCH = ("torch", "torchvision", "timm", "segment_anything")

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


def imported_by(module: str, names: tuple[str, ...]) -> list[str]:
    """Which of some packages a process has imported after a module."""
    probe = f"import sys, {module}; print(*(m for m in {names!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("module", ["wsisam_qupath", "wsisam_qupath.cli.main"])
def test_the_command_line_starts_without_heavy_imports(module: str) -> None:
    assert imported_by(module, HEAVY) == []


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_pytorch_is_imported_when_it_is_needed(module: str) -> None:
    assert imported_by(module, TORCH) == []
