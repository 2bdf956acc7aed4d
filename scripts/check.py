"""Check the project: style, types, rules, docs, and the tests against the built wheel.

    python scripts/check.py [--walks] [pytest arguments]

The tests import the wheel and not the source tree: what the wheel lacks, they miss. With
``--walks``, as CI runs it, the tests marked ``walk`` and ``window`` run too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import importlinter.cli

ROOT = Path(__file__).resolve().parent.parent

_MOST_PROCESSES = 4
"""Each takes about 2 GB."""


def main() -> None:
    arguments = sys.argv[1:]
    with_walks = "--walks" in arguments
    chosen = [argument for argument in arguments if argument != "--walks"]
    wanted = "not window" if with_walks else "not window and not walk"
    run("ruff", "check", ".")
    run("ruff", "format", "--check", ".")
    run("codespell_lib")
    run("mypy")
    lint_imports()
    check_documents()
    with tempfile.TemporaryDirectory(prefix="wsisam-qupath-wheel-") as folder:
        built, unpacked = Path(folder) / "dist", Path(folder) / "site"
        run("build", "--no-isolation", "--outdir", str(built), ".")  # the wheel from the sdist
        (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
        check_package(wheel, source)
        run("pip", "install", "--quiet", "--no-deps", "--target", str(unpacked), str(wheel))
        # Not in the root: Python puts the folder that it starts in before all others. A process a
        # core, each with one thread of its own: small models gain nothing from more.
        run(
            *("pytest", "--numprocesses=auto", f"--maxprocesses={_MOST_PROCESSES}"),
            *("--dist=loadfile", "--no-loadscope-reorder", "-m", wanted, *chosen),
            folder="tests",
            PYTHONPATH=str(unpacked),
            OMP_NUM_THREADS="1",
        )
        if with_walks and not chosen:  # alone: a busy screen loses what mouse and keys do
            run("pytest", "-m", "window", "groovy", folder="tests", PYTHONPATH=str(unpacked))


def check_package(wheel: Path, source: Path) -> None:
    """Check what a package index would be given, and that the sources hold what README links."""
    run("twine", "check", "--strict", str(wheel), str(source))
    run("check_wheel_contents", str(wheel))
    # The project has no mail address; SECURITY.md says where to report.
    run("pyroma", "--min", "9", "--skip-tests", "AuthorEmail", str(source))
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / "README.md").read_text("utf-8"))
    if missing := sorted({*links} - held):
        sys.exit(f"The source archive lacks what README.md links: {', '.join(missing)}")


def lint_imports() -> None:
    """Check the import rules of ``pyproject.toml``."""
    print("== lint-imports", flush=True)
    if code := importlinter.cli.lint_imports():
        sys.exit(code)


def check_documents() -> None:
    """Check what pyproject.toml declares, the picture of the rooms, and the pages of the docs."""
    source = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "training")))}
    run_script("check_dependencies.py", **source)
    run_script("draw_architecture.py", "--check", **source)
    run_script("check_docs.py", **source)
    with tempfile.TemporaryDirectory(prefix="wsisam-qupath-docs-") as folder:
        run("sphinx", "-q", "-E", "-W", "--keep-going", "-d", f"{folder}/cache", "docs", folder)


def run_script(name: str, *arguments: str, **variables: str) -> None:
    """Run a script of this folder; its failure is ours."""
    print(f"== {name} {' '.join(arguments)}", flush=True)
    command = [sys.executable, str(ROOT / "scripts" / name), *arguments]
    code = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=False)
    if code.returncode:
        sys.exit(code.returncode)


def run(module: str, *arguments: str, folder: str = ".", **variables: str) -> None:
    """Run a module of this Python in a folder of the project; its failure is ours."""
    print(f"== {module} {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", module, *arguments]
    code = subprocess.run(command, cwd=ROOT / folder, env={**os.environ, **variables}, check=False)
    if code.returncode:
        sys.exit(code.returncode)


if __name__ == "__main__":
    main()
