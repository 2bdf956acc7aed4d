"""Check what works on this machine, and say how to fix what does not.

Each probe looks at one thing and is on its own: whatever it meets, the others still run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..errors import REINSTALL, ProjectError, QuPathError, WsiSamError, pip_reinstall
from ..files import CACHE_VARIABLE, compute_sha256
from ..model.bases import BASES, Base, Bundled, Download
from ..model.weights import explain_fix, find_expected_path
from ..qupath.install.installation import find_installation
from . import doctor_machine as machine
from .doctor_machine import Finding

if TYPE_CHECKING:
    from rich.console import Console

    from ..qupath.jvm.process import QuPathProcess

State: TypeAlias = Literal["ok", "warning", "failed"]
"""``warning``: a part of the program does not work; the rest works without it."""

_STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "bold red"}


@dataclass(frozen=True)
class Check:
    """What a probe found: one line of the table.

    Attributes:
        name: what was looked at.
        state: whether it works, is a warning, or failed.
        detail: versions and places, or what is wrong.
        fix: what to do about it; None if nothing needs to be done.
        required: whether the program cannot work at all without it.
    """

    name: str
    state: State
    detail: str
    fix: str | None
    required: bool


@dataclass(frozen=True)
class Probe:
    """One thing to look at, and how.

    Attributes:
        name: what the probe looks at.
        required: whether the program cannot work at all without it.
        look: looks at it; any error that it raises counts as not working.
        fix: what to do if `look` raises an error.
    """

    name: str
    required: bool
    look: Callable[[], Finding]
    fix: str


def run_probe(probe: Probe) -> Check:
    """Run a probe; whatever is wrong becomes a line of the table. Never raises."""
    try:
        finding = probe.look()
    except WsiSamError as exc:
        finding = Finding(str(exc), probe.fix)
    except FutureTimeoutError:
        finding = Finding(f"no answer within {_PATIENCE_S:.0f} seconds", probe.fix)

    # A broad except, here alone: a damaged installation may raise anything on import, and the
    except Exception as exc:  # noqa: BLE001
        first_line = (str(exc).strip().splitlines() or [""])[0]
        finding = Finding(f"{type(exc).__name__}: {first_line}", probe.fix)
    trouble: State = "failed" if probe.required else "warning"
    state: State = "ok" if finding.fix is None else trouble
    return Check(probe.name, state, finding.detail, finding.fix, probe.required)


def run_doctor(project: Path | None, console: Console) -> list[Check]:
    """Run all probes. Takes some seconds, most of them to start PyTorch and QuPath.

    Args:
        project: a QuPath project to open; None makes a small one for the purpose.
        console: where to show what is being looked at.
    """
    from ..report.progress import show_progress  # rich: 0.1 s, which `--help` need not spend

    probes = {**PROBES, "QuPath project": project_probe(project)}
    checks = []
    with show_progress(console, "Checking this computer", len(probes)) as progress:
        for probe in progress.track(probes.values()):
            progress.update(note=probe.name)
            checks.append(run_probe(probe))
    return checks


def exit_code(checks: Iterable[Check]) -> int:
    """Compute the exit code: 1 if something required failed, else 0."""
    return int(any(check.required and check.state == "failed" for check in checks))


def print_doctor(checks: Sequence[Check], console: Console) -> None:
    """Print one table: state, name, what was found, and below it how to fix what does not work."""
    from rich.table import Table  # 0.1 s, which `--help` need not spend
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("State", no_wrap=True)
    table.add_column("What", no_wrap=True)
    table.add_column("Found", overflow="fold")
    for check in checks:
        # Text and not str: an "[Errno 2]" is no markup.
        found = Text(check.detail)
        if check.fix:
            found.append(f"\n-> {check.fix}", style="bold")
        table.add_row(Text(check.state, _STYLES[check.state]), check.name, found)
    console.print(table)
    console.print(_summary(checks))


def _summary(checks: Sequence[Check]) -> str:
    failed = [check.name for check in checks if check.required and check.state != "ok"]
    if failed:
        return f"Needed, but not working: {', '.join(failed)}."
    return "Everything that is needed works."


def _openslide() -> Finding:
    import openslide  # loads a shared library

    return Finding(
        f"library {openslide.__library_version__}, Python binding {openslide.__version__}"
    )


def _weights(base: Base) -> Finding:
    from rich.filesize import decimal  # 0.1 s, which `--help` need not spend

    if isinstance(base.source, Bundled) and find_spec(base.source.package) is None:
        return Finding("not here; on a CPU, this base with its own adapter does without them")
    path = find_expected_path(base)
    if not path.exists() and isinstance(base.source, Download):
        # Nothing is wrong: these are only wanted by who chooses this base.
        size = decimal(base.source.size_bytes)
        return Finding(f"not here; `wsisam-qupath weights {base.name}` brings {size}")
    if compute_sha256(path) != base.sha256:
        return Finding(f"{path} is damaged: its checksum is wrong", explain_fix(base))
    return Finding(f"{path.name}, checksum right; {base.licence}")


def _adapter(base: Base) -> Finding:
    from ..model.shipped import load_chosen_adapter  # imports NumPy

    adapter = load_chosen_adapter("default", base)
    if adapter is None:
        return Finding("missing, so that points find little", REINSTALL)
    card = adapter.path.with_suffix(".md")
    return Finding(f"{adapter.name}, checksum {adapter.sha256[:12]}…; {_TERMS} {card}")


def _qupath() -> Finding:
    try:
        found = find_installation()
    except QuPathError as exc:
        return Finding("none; only work on QuPath projects needs it", str(exc))
    version = found.version or "Unknown version"
    untested = "" if found.is_tested else ", which is newer than what was tested"
    java = found.java_version or "of unknown version"
    return Finding(f"{version}{untested} at {found.app_dir}, Java {java}")


def _through_qupath(look: Callable[[QuPathProcess], Finding]) -> Finding:
    """Run a probe in QuPath's process; without a QuPath it is not run."""
    from ..qupath.jvm.process import QuPathProcess  # 0.05 s, only needed here

    try:
        process = QuPathProcess(find_installation())
    except QuPathError:
        return Finding("not tried without a QuPath", _SEE_QUPATH)
    with process:
        return look(process)


def _java(process: QuPathProcess) -> Finding:
    from ..qupath.jvm.about import describe  # only needed here

    info = process.submit(describe).result(_PATIENCE_S)
    return Finding(
        f"{info.java_version} runs QuPath {info.qupath_version}, through paquo {info.paquo_version}"
    )


def _project(project: Path, process: QuPathProcess) -> Finding:
    """Check that a user's project opens, and which of its images cannot be worked on."""
    from ..qupath.files.reading import read_project  # only needed here

    try:
        read = read_project(project)
        machine.try_to_write(read.path.parent)
        n_images = _count_images(read.path, process)
    except ProjectError as exc:
        return Finding("cannot be used", str(exc))
    except OSError as exc:
        return Finding(f"{read.path.parent} cannot be written ({exc.strerror})", _ALLOW_WRITING)
    opens = f"{read.path} opens in QuPath, images: {n_images}"
    troubled = [image for image in read.images if image.trouble]
    if not troubled:
        return Finding(opens)
    return Finding(
        f"{opens}; {len(troubled)} of them cannot be used",
        f"The first is {troubled[0].name}: {troubled[0].trouble}",
    )


def _make_new_project(process: QuPathProcess) -> Finding:
    """Check that QuPath makes and opens a project: one of a small slide, in a temporary folder."""
    from ..qupath.jvm.creation import NewImage, add_images  # imports NumPy

    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder, "slide.tif")
        project = Path(folder, "project", "project.qpproj")
        machine.draw_slide(slide)
        project.parent.mkdir()
        coming = process.submit(add_images, project, [NewImage(slide)], "brightfield-h-e")
        (added,) = coming.result(_PATIENCE_S)
        if added.reason:
            raise QuPathError(added.reason)
        n_images = _count_images(project, process)
    return Finding(f"a new one opens, images: {n_images}")


def _count_images(project: Path, process: QuPathProcess) -> int:
    from ..qupath.jvm.about import check_opens  # only needed here

    return process.submit(check_opens, project).result(_PATIENCE_S)


def _groovy_scripts() -> Finding:
    from ..qupath.install import scripts  # only needed here
    from ..qupath.jvm.preferences import find_user_folder  # needs Java, unlike `--help`

    try:
        version = find_installation().version or ""
    except QuPathError:
        return Finding("not looked for without a QuPath", _SEE_QUPATH)
    chosen = find_user_folder()
    user_folder = chosen or scripts.suggest_user_folder(version)
    folder = scripts.menu_folder(user_folder)
    found = scripts.look(folder, scripts.read_shipped_scripts())
    n_old = sum(copy.state in ("missing", "outdated") for copy in found)
    if n_old:
        detail = f"{n_old} of {len(found)} missing or outdated in {folder}"
        return Finding(detail, "Run `wsisam-qupath setup`.")
    n_edited = sum(copy.state == "edited" for copy in found)
    detail = f"{len(found)} in {folder}" + (f", changed by somebody: {n_edited}" * bool(n_edited))
    if chosen is None:
        return Finding(
            f"{detail}, where QuPath does not look yet",
            scripts.explain_how_to_choose(user_folder),
        )
    return Finding(detail)


_TERMS = "for research, not for diagnosis; its license is unclear, see its card"

_SEE_QUPATH = "See the line of QuPath."
_ALLOW_WRITING = "Make room and allow writing in the project's folder."
_START_QUPATH = "Start QuPath itself, to see whether it works on this machine."

_PATIENCE_S = 120.0
"""Time after which a probe counts as failed, seconds."""


def project_probe(project: Path | None) -> Probe:
    """Make the probe that opens a project: a user's, or one made for the purpose."""
    look = _make_new_project if project is None else partial(_project, project)
    return Probe("QuPath project", False, partial(_through_qupath, look), _START_QUPATH)


PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        Probe("Python", True, machine.look_at_python, "Install Python again."),
        Probe("computer", False, machine.look_at_computer, "Report this."),
        Probe("locale", False, machine.look_at_locale, "Report this."),
        Probe(
            "PyTorch",
            False,
            machine.look_at_pytorch,
            f"Install both from one source: {pip_reinstall('torch torchvision')}.",
        ),
        Probe("GPU", False, machine.look_at_gpu, "See the line of PyTorch."),
        Probe(
            "OpenVINO",
            False,
            machine.look_at_openvino,
            f"Run {pip_reinstall('openvino')}. Until then PyTorch, where it is installed, does its "
            "work, several times slower.",
        ),
        Probe(
            "OpenSlide",
            True,
            _openslide,
            f"Run {pip_reinstall('openslide-bin openslide-python')}.",
        ),
        *(
            Probe(f"weights {base.name}", False, partial(_weights, base), explain_fix(base))
            for base in BASES.values()
        ),
        Probe("adapter", False, partial(_adapter, BASES["lite-medsam"]), REINSTALL),
        Probe(
            "cache folder",
            False,
            machine.look_at_cache,
            f"Make room, or name a folder that you can write to in {CACHE_VARIABLE}.",
        ),
        Probe(
            "other folders", False, machine.look_at_folders, "Make room and allow writing there."
        ),
        Probe("model", True, machine.look_at_model, "See the lines above."),
        Probe("QuPath", False, _qupath, f"Run {pip_reinstall('paquo')}."),
        Probe("Java", False, partial(_through_qupath, _java), _START_QUPATH),
        project_probe(None),
        Probe("Groovy scripts", False, _groovy_scripts, "Run `wsisam-qupath setup`."),
    )
}
"""All probes by name, in the order of the table."""
