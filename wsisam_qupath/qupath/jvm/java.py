"""Starts QuPath's Java virtual machine and translates its exceptions.

Runs in QuPath's process only: Java can be started only once in a process, and its crash ends the
process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from ...errors import QuPathError, WsiSamError
from ..install.installation import Installation, find_installation
from . import class_path

Java: TypeAlias = Any
"""A Java class, object or array."""

_NATIVE_ACCESS_JAVA_MIN = 17

_TOLD_BY_US = ("qupath.lib.io.PathIO", "qupath.lib.plugins.workflow.Workflow")
"""Java loggers of damaged files, which print traces; :mod:`.integrity` says it in a sentence."""


def start(installation: Installation | None = None, natives: str | None = None) -> None:
    """Start the Java virtual machine, about a second; does nothing if it runs.

    paquo's modules of Java classes may be imported only after this: they start a machine of their
    own otherwise.

    Args:
        installation: the QuPath to use; searched for if None.
        natives: folder of :func:`.class_path.choose_places` that native libraries are unpacked
            into; Java chooses it if None.

    Raises:
        QuPathError: there is no QuPath, or Java does not start.
    """
    import jpype  # loads a shared library, like paquo

    if jpype.isJVMStarted():
        return
    from paquo.jpype_backend import QuPathJVMInfo, start_jvm

    installation = installation or find_installation()
    options = [*installation.jvm_options, *_make_options(installation)]
    if natives is not None:
        options.append(f"-Djna.tmpdir={natives}")
    app_dir = class_path.prepare(installation.app_dir, natives)
    found = QuPathJVMInfo(app_dir, installation.runtime_dir, installation.jvm_path, options)
    try:
        start_jvm(finder=lambda **_: found)
    except (RuntimeError, OSError, jpype.JException) as exc:
        raise QuPathError(
            f"QuPath's Java at {installation.jvm_path} does not start "
            f"({_take_first_line(str(exc))}): check PAQUO_JAVA_OPTS, and that QuPath itself starts."
        ) from exc
    _quiet_logging()


@cache
def java_class(name: str) -> Java:
    """Load a Java class by its full name; Java must be running."""
    import jpype  # this runs in QuPath's process only

    return jpype.JClass(name)


def java_array(element: str, items: Sequence[Any] | NDArray[Any]) -> Java:
    """Make a Java array of objects of a class, or of numbers of a type such as "double"."""
    import jpype  # this runs in QuPath's process only

    return jpype.JArray(java_class(element))(items)


def java_path(path: Path) -> Java:
    return java_class("java.io.File")(str(path)).toPath()


@contextmanager
def translate_java_errors(
    what: str,
    hint: str = "open the project in QuPath to see whether QuPath can do it",
    error: type[WsiSamError] = QuPathError,
) -> Iterator[None]:
    """Translate Java exceptions into an error with one sentence.

    Args:
        what: beginning of the message, such as "Reading image 3".
        hint: end of the message.
        error: class of the error that is raised.

    Raises:
        WsiSamError: of type `error`, or QuPathError where Java has not enough memory.
    """
    import jpype  # this runs in QuPath's process only

    try:
        yield
    except jpype.JException as exc:
        name, message = str(exc.getClass().getSimpleName()), exc.getMessage()
        if name == "OutOfMemoryError":
            raise QuPathError(
                f"{what} takes more memory than Java may use: give Java more, for example 8 GB "
                "with PAQUO_JAVA_OPTS=-Xmx8g."
            ) from exc
        reason = name if message is None else f"{name}: {_take_first_line(str(message))}"
        raise error(f"{what} failed in QuPath ({reason}): {hint}.") from exc


def _make_options(installation: Installation) -> list[str]:
    # Signals are Python's business. No window is ever opened, and without a screen none can be.
    options = ["-Xrs", "-Djava.awt.headless=true"]
    stated = re.match(r"\d+", installation.java_version or "")
    if stated is None or int(stated[0]) >= _NATIVE_ACCESS_JAVA_MIN:
        # Newer ones warn on each start without it, and older ones refuse it.
        options.append("--enable-native-access=ALL-UNNAMED")
    return options


def _quiet_logging() -> None:
    """Log only QuPath's errors: what matters of the rest becomes an error of this program."""
    import jpype

    # On import it turns QuPath's log to its most talkative, so it has to come first.
    import paquo._logging  # noqa: F401

    levels = jpype.JClass("ch.qos.logback.classic.Level")
    loggers = jpype.JClass("org.slf4j.LoggerFactory").getILoggerFactory()
    loggers.getLogger("ROOT").setLevel(levels.ERROR)
    for reader in _TOLD_BY_US:
        loggers.getLogger(reader).setLevel(levels.OFF)


def _take_first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]
