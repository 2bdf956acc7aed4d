"""The order of the house: imports run downwards only, and few modules know PyTorch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

FLOORS = (
    ("errors", "printing", "version", "options", "protocol"),
    ("geometry", "validity", "uri", "json_files"),
    ("files", "coverage", "prompts"),
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

FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}


def package() -> Path:
    spec = find_spec("wsisam_qupath")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name inside of it."""
    root = package()
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


def room(module: str) -> str:
    """Whose floor counts: the module's own, or that of the package that hides it."""
    return module if module in FLOOR_OF else module.partition(".")[0]


def imports(module: str, path: Path, *, deferred: bool) -> Iterator[str]:
    """What a module imports, in dotted names; ``deferred`` counts imports in functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    if module == "__init__":
        here = []
    for node in ast.walk(tree) if deferred else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1]
            target = [*base, *(node.module or "").split(".")] if node.module else base
            dotted = ".".join(part for part in target if part)
            for alias in node.names:
                inner = f"{dotted}.{alias.name}" if dotted else alias.name
                yield f"wsisam_qupath.{inner if inner in modules() else dotted}"


def own_imports(module: str, path: Path) -> set[str]:
    prefix = "wsisam_qupath."
    found = (name for name in imports(module, path, deferred=True) if name.startswith(prefix))
    return {room(name.removeprefix(prefix)) for name in found}


def test_every_module_has_its_floor() -> None:
    empty = {name for name, path in modules().items() if name == "model" and path.stat().st_size}
    rooms = {room(name) for name in modules()} - empty

    assert rooms == set(FLOOR_OF)


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_downwards(module: str) -> None:
    path, own = modules()[module], room(module)
    if module == "__init__":
        pytest.skip("the public names are taken from everywhere, when they are first used")

    upwards = {
        name
        for name in own_imports(module, path)
        if name != own and FLOOR_OF[name] >= FLOOR_OF.get(own, 0)
    }

    assert not upwards


@pytest.mark.parametrize("module", sorted(modules()))
def test_few_modules_know_pytorch(module: str) -> None:
    roots = {n.partition(".")[0] for n in imports(module, modules()[module], deferred=False)}

    assert not roots & TORCH_PACKAGES or module in WITH_TORCH


@pytest.mark.parametrize("module", ["wsisam_qupath", "wsisam_qupath.cli"])
def test_the_command_line_starts_without_heavy_imports(module: str) -> None:
    probe = f"import sys, {module}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
