"""The ``setup`` command: QuPath, weights, and the scripts in QuPath's menu, each if it is missing.

Each step looks first and does nothing twice; what one step meets, the others still run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..errors import QuPathError, WeightsError, WsiSamError
from ..model.bases import Base, Bundled, Download, find_base
from ..model.weights import locate_weights
from ..qupath.install import download, program, scripts
from ..qupath.install.installation import Installation, find_installation
from ..report.progress import show_progress, stderr_console
from .weights_download import run_weights

if TYPE_CHECKING:
    from rich.console import Console

StepState: TypeAlias = Literal["done", "already there", "would be done", "left alone", "failed"]
"""``would be done``: in a dry run. ``left alone``: a file that the user edited is there."""

_STYLES: dict[StepState, str] = {
    "done": "green",
    "already there": "green",
    "would be done": "cyan",
    "left alone": "yellow",
    "failed": "bold red",
}


@dataclass(frozen=True)
class SetupRequest:
    """The options of ``setup``, under the names that they have on the command line.

    Attributes:
        weights: names of the base models to download weights of.
        install: whether to download QuPath if there is none.
        qupath_dir: folder to install QuPath in; None for one where paquo finds it.
        user_dir: QuPath's user folder; None for the one that its preferences name.
        startup_script: whether QuPath is to run our script when it starts.
        dry_run: whether to look only, and change nothing.
    """

    weights: tuple[str, ...] = ()
    install: bool = True
    qupath_dir: Path | None = None
    user_dir: Path | None = None
    startup_script: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Step:
    """What became of one step.

    Attributes:
        name: what the step is about.
        state: what was done.
        detail: where the thing is now and what is left to do, or what is wrong and how to fix it.
        to_paste: a line for the user to copy, printed in one piece.
    """

    name: str
    state: StepState
    detail: str
    to_paste: str = ""


_Outcome: TypeAlias = tuple[StepState, str] | tuple[StepState, str, str]


def run_setup(request: SetupRequest) -> tuple[Step, ...]:
    """Find or install QuPath, fetch weights, and put the scripts where QuPath shows them.

    Raises:
        OptionError: there is no base of that name; nothing was done.
    """
    bases = [find_base(name) for name in request.weights]
    steps: list[tuple[str, Callable[[], _Outcome]]] = [
        ("QuPath", partial(_set_up_qupath, request)),
        *((f"weights {base.name}", partial(_set_up_weights, base, request)) for base in bases),
        ("server", partial(_set_up_server, request)),
        ("Groovy scripts", partial(_set_up_scripts, request)),
    ]
    if request.startup_script:
        steps.append(("startup script", partial(_set_up_startup, request)))
    return tuple(_try_step(name, step) for name, step in steps)


def exit_code(steps: Iterable[Step]) -> int:
    """Compute the exit code: 2 if a step failed for a reason that the user can fix, else 0."""
    return 2 if any(step.state == "failed" for step in steps) else 0


def print_steps(steps: Sequence[Step], console: Console) -> None:
    """Print one line per step: its state, and details."""
    from rich.table import Table  # 0.1 s, which `--help` need not spend
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for step in steps:
        table.add_row(Text(step.state, _STYLES[step.state]), step.name, Text(step.detail))
    console.print(table)
    for line in (step.to_paste for step in steps if step.to_paste):
        console.print(line, soft_wrap=True, markup=False)


def _try_step(name: str, step: Callable[[], _Outcome]) -> Step:
    try:
        return Step(name, *step())
    except WsiSamError as exc:
        return Step(name, "failed", str(exc))


def _set_up_qupath(request: SetupRequest) -> _Outcome:
    target = download.find_installed_path(_install_folder(request))
    try:
        return "already there", _describe_installation(find_installation())
    except QuPathError:
        # A wrong setting must be corrected first: what is installed now would not be used.
        if not (request.install and download.is_searched_for()):
            raise
    if download.holds_qupath(target):
        return "already there", f"{target}. {_name_it(target)}"
    if request.dry_run:
        return "would be done", f"QuPath {download.VERSION} from github.com, to {target}"
    with _download_bar() as progress:
        download.install(target.parent, progress)
    return "done", _describe_target(target)


def _install_folder(request: SetupRequest) -> Path:
    return (request.qupath_dir or download.find_default_folder()).expanduser().absolute()


def _describe_installation(found: Installation) -> str:
    version = f"QuPath {found.version or 'of unknown version'} at {found.app_dir}"
    untested = "" if found.is_tested else f"; tested is {download.VERSION}"
    return version + untested


def _describe_target(target: Path) -> str:
    try:
        found = find_installation()
    except QuPathError:  # installed where nothing looks for it
        return f"QuPath {download.VERSION} at {target}. {_name_it(target)}"
    return _describe_installation(found)


def _name_it(target: Path) -> str:
    return f"Set PAQUO_QUPATH_DIR to {target}: it is not found there by itself."


@contextmanager
def _download_bar() -> Iterator[download.Progress]:
    """Show how much of a file has been downloaded."""
    what = f"Downloading QuPath {download.VERSION}"
    with show_progress(stderr_console(), what, unit="B") as progress:
        yield progress.advance


def _set_up_weights(base: Base, request: SetupRequest) -> _Outcome:
    try:
        return "already there", str(locate_weights(base).path)
    except WeightsError:
        if isinstance(base.source, Bundled):
            raise
    if request.dry_run:
        return "would be done", _size(base)
    return "done", str(run_weights(base.name))


def _size(base: Base) -> str:
    from rich.filesize import decimal  # 0.1 s, which `--help` need not spend

    assert isinstance(base.source, Download)
    return f"a download of {decimal(base.source.size_bytes)}"


def _set_up_server(request: SetupRequest) -> _Outcome:
    """Note where this program is, for the script in QuPath that starts the server."""
    command = " ".join(program.find_command())
    if program.is_noted():
        return "already there", f"QuPath starts {command} when it is needed."
    if request.dry_run:
        return "would be done", f"QuPath would start {command} when it is needed."
    path = program.note()
    return "done", f"QuPath starts {command} when it is needed, as {path} says."


def _set_up_scripts(request: SetupRequest) -> _Outcome:
    version = _find_version()
    user_folder, advice = _user_folder(request, version)
    folder = scripts.menu_folder(user_folder)
    if advice and request.user_dir is None and not request.dry_run and _choose(user_folder):
        advice = " QuPath had no user folder, and has this one now."
    found = (scripts.look if request.dry_run else scripts.put)(
        folder, scripts.read_shipped_scripts()
    )
    new = [copy for copy in found if copy.state in ("missing", "outdated")]
    edited = [copy.path.name for copy in found if copy.state == "edited"]
    detail = f"{len(found) - len(edited)} in {folder}.{advice}"
    if edited:
        theirs = ", ".join(edited)
        detail += (
            f" {theirs} was changed by somebody and is left alone: delete it and run this again to "
            "get the one that comes with this version."
        )
    if new:
        return ("would be done" if request.dry_run else "done"), detail
    return ("left alone" if edited else "already there"), detail


def _find_version() -> str:
    """Return the version of the installed QuPath, or else of the one that would be installed."""
    try:
        return find_installation().version or download.VERSION
    except QuPathError:
        return download.VERSION


def _user_folder(request: SetupRequest, version: str) -> tuple[Path, str]:
    """Find QuPath's user folder, and what the user must do so that QuPath looks there."""
    from ..qupath.jvm.preferences import find_user_folder  # needs Java, unlike `--help`

    with show_progress(stderr_console(), "Asking QuPath for its user folder"):
        chosen = find_user_folder()
    wanted = request.user_dir.expanduser().absolute() if request.user_dir else chosen
    folder = wanted or scripts.suggest_user_folder(version)
    if folder == chosen:
        return folder, ""
    return folder, f" QuPath does not look there yet. {scripts.explain_how_to_choose(folder)}"


def _choose(user_folder: Path) -> bool:
    """Have QuPath use the user folder that it would suggest; False if there is no QuPath."""
    from ..qupath.jvm.preferences import choose_user_folder  # needs Java, unlike `--help`

    try:
        user_folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False  # whoever puts the scripts there says why
    with show_progress(stderr_console(), "Telling QuPath its user folder"):
        return choose_user_folder(user_folder)


def _set_up_startup(request: SetupRequest) -> _Outcome:
    """Have QuPath run our script when it starts, unless the user chose another script."""
    from ..qupath.jvm import preferences  # beside Java, which `--help` does not need
    from ..qupath.jvm.process import QuPathProcess

    user_folder, _ = _user_folder(request, _find_version())
    ours = scripts.menu_folder(user_folder) / scripts.INTERACTIVE
    with QuPathProcess() as qupath, show_progress(stderr_console(), "Asking QuPath"):
        stated = qupath.run(preferences.read_startup_script)
        if stated is not None and Path(stated) == ours:
            return "already there", str(ours)
        if stated is not None and Path(stated).exists():
            line = (
                f"qupath.lib.gui.QuPathGUI.getInstance().runScript(new File({str(ours)!r}), null)"
            )
            words = f"QuPath runs {stated} when it starts. Add the line below to it."
            return "left alone", words, line
        if request.dry_run:
            return "would be done", str(ours)
        qupath.run(preferences.set_startup_script, str(ours))
    return (
        "done",
        f"{ours}. Start QuPath again: its commands are under Extensions > {scripts.MENU}.",
    )
