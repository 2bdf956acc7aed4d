"""Runs of the Groovy script. All but :class:`RunningServer` happens in QuPath's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qupath_fixtures import java_entry

SCRIPT = Path(__file__).parents[1] / "groovy" / "wsi_sam.groovy"
_START_S = 600.0
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class RunningServer:
    """``wsisam-qupath serve`` of a user whose home folder is a test's."""

    home: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, home: Path, *options: str) -> RunningServer:
        command = [sys.executable, "-m", "wsisam_qupath", "serve", "--port", "0", *options]
        environment = {**os.environ, "HOME": str(home), "USERPROFILE": str(home)}
        with (home / "server.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        server = cls(home, process)
        try:
            server._wait()
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def connection(self) -> dict[str, Any]:
        """What the server left for clients on this machine."""
        found: dict[str, Any] = json.loads(
            (self.home / ".wsisam-qupath" / "server.json").read_text()
        )
        return found

    @property
    def log(self) -> str:
        return (self.home / "server.log").read_text(encoding="utf-8")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)

    def _wait(self) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log
            if (self.home / ".wsisam-qupath" / "server.json").exists() and self._state() == "ready":
                return
            time.sleep(1)
        raise AssertionError(f"the server is not ready after {_START_S} s:\n{self.log}")

    def _state(self) -> str:
        with _DIRECTLY.open(self.connection["url"] + "/healthz") as answer:
            state: str = json.load(answer)["state"]
        return state


def live_in(home: Path) -> None:
    """Have this Java machine take a folder for its user's home, with preferences of its own."""
    import jpype

    system = jpype.JClass("java.lang.System")
    system.setProperty("user.home", str(home))
    system.setProperty("java.util.prefs.userRoot", str(home))


def compile_script() -> list[str]:
    """The names of the classes that the script compiles to."""
    import jpype

    loader = jpype.JClass("groovy.lang.GroovyClassLoader")()
    loader.parseClass(jpype.JClass("java.io.File")(str(SCRIPT)))
    return sorted(str(one.getSimpleName()) for one in loader.getLoadedClasses())


def run_script(project: Path, entry_id: str, prepare: str = "", look: str = "") -> str:
    """Run the script on an image as ``QuPath script -s`` does.

    Args:
        prepare, look: Groovy, run on ``imageData`` before and after it.

    Returns:
        What ``look`` evaluates to, or what the script threw.
    """
    import jpype

    image_data = java_entry(project, entry_id).readImageData()
    batch = jpype.JClass("qupath.lib.scripting.QP").setBatchProjectAndImage
    batch(None, image_data)
    binding = jpype.JClass("groovy.lang.Binding")()
    binding.setVariable("imageData", image_data)
    shell = jpype.JClass("groovy.lang.GroovyShell")(binding)
    no_arguments = jpype.JArray(jpype.JString)(0)
    try:
        shell.evaluate(prepare)
        shell.run(jpype.JClass("java.io.File")(str(SCRIPT)), no_arguments)
        answer = str(shell.evaluate(look))
    except jpype.JException as exc:
        answer = str(exc.getMessage())
    java_entry(project, entry_id).saveImageData(image_data)
    batch(None, None)
    return answer
