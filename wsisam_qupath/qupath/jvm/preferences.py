"""QuPath's own preferences: its user folder and its startup script."""

from __future__ import annotations

from pathlib import Path

from ...errors import QuPathError
from ..install.scripts import find_series
from .java import Java, java_class
from .process import QuPathProcess


def find_user_folder() -> Path | None:
    """Ask QuPath, in a process of its own, for the user folder that was chosen in it.

    Returns:
        An existing folder; None if none was chosen, if it is gone (QuPath then asks for one), or
        if no QuPath can be started.
    """
    try:
        with QuPathProcess() as process:
            stated = process.run(read_user_folder)
    except QuPathError:
        return None
    return Path(stated) if stated and Path(stated).is_dir() else None


def choose_user_folder(folder: Path) -> bool:
    """Have QuPath use a user folder, unless one was chosen in it that is only gone for now.

    Returns:
        False if one was chosen, or if no QuPath can be started.
    """
    try:
        with QuPathProcess() as process:
            if process.run(read_user_folder) is not None:
                return False
            process.run(set_user_folder, str(folder))
    except QuPathError:
        return False
    return True


def set_user_folder(path: str) -> None:
    """Have QuPath use a user folder. Runs in QuPath's process."""
    java_class("qupath.lib.gui.prefs.PathPrefs").userPathProperty().set(path)
    java_class("java.util.prefs.Preferences").userRoot().flush()


def read_user_folder() -> str | None:
    """Read the user folder from the preferences. Runs in QuPath's process, and changes nothing."""
    version = str(java_class("qupath.lib.common.GeneralTools").getVersion())
    root = java_class("java.util.prefs.Preferences").userRoot()
    node = f"io.github.qupath/{find_series(version)}"
    # PathPrefs would make the node where QuPath was never started.
    stated = root.node(node).get("userPath", None) if root.nodeExists(node) else None
    return None if stated is None else str(stated)


def read_startup_script() -> str | None:
    """Read which script QuPath runs when it starts; None if none. Runs in QuPath's process."""
    stated = _startup_script().get()
    return str(stated) if stated is not None and str(stated) else None


def set_startup_script(path: str) -> None:
    """Have QuPath run a script whenever it starts. Runs in QuPath's process."""
    _startup_script().set(path)
    java_class("java.util.prefs.Preferences").userRoot().flush()


def _startup_script() -> Java:
    return java_class("qupath.lib.gui.prefs.PathPrefs").startupScriptProperty()
