"""QuPath's startup script, in its own preferences. Runs in QuPath's process."""

from __future__ import annotations

from .java import Java, java_class


def startup_script() -> str | None:
    """The script that QuPath runs when it starts; None if it runs none."""
    stated = _property().get()
    return str(stated) if stated is not None and str(stated) else None


def set_startup_script(path: str) -> None:
    """Have QuPath run a script when it starts from now on."""
    _property().set(path)
    java_class("java.util.prefs.Preferences").userRoot().flush()


def _property() -> Java:
    return java_class("qupath.lib.gui.prefs.PathPrefs").startupScriptProperty()
