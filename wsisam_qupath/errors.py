"""The errors that a user can fix, as one tree.

::

    WsiSamError
    ├── SlideError      a slide is missing or damaged
    │   └── PixelSizeError  the pixel size of a slide is unknown
    ├── PromptError     a prompts file cannot be read, or holds nothing usable
    ├── WeightsError    base weights are missing, unreachable, or have a wrong checksum
    ├── AdapterError    an adapter is damaged, or was trained for another base
    ├── DeviceError     this machine lacks a device, a backend or a Python package
    ├── OptionError     the value of an option cannot be used
    ├── QuPathError     QuPath is missing, of an unsupported version, or failed
    │   └── QuPathTimeoutError  QuPath did not answer in time and was ended
    ├── ProjectError    a QuPath project cannot be used as it is
    │   └── ImageError  one image of a project cannot be used; the others can
    │       └── MissingSlideError  its slide is not where the project says
    ├── FormatError     a file was written by a newer version of this program
    └── OutputError     a result cannot be written to its destination

Each message is one or two sentences: what is wrong, and how to fix it. It names options in words,
never as flags of the command line, since people also meet it in QuPath, over HTTP and in Python.
The command line prints the message and exits with 2; a program catches :class:`WsiSamError`.
"""

import sys
from importlib.util import find_spec


class WsiSamError(Exception):
    """Base class of all errors that have a cause outside of this package.

    Attributes:
        helped_by: Python name of an option that solves it; None if there is none.
    """

    helped_by: str | None = None


class SlideError(WsiSamError):
    """A slide is missing, damaged, or cannot be used as it is."""


class PixelSizeError(SlideError):
    """The pixel size of a slide is unknown: neither the file nor the user states it."""

    helped_by = "mpp"


class PromptError(WsiSamError):
    """Prompts cannot be read, or none of them is usable."""


class WeightsError(WsiSamError):
    """Base weights are missing, unreachable, or do not have the expected checksum."""


class AdapterError(WsiSamError):
    """An adapter is damaged, or was trained for another base."""


class DeviceError(WsiSamError):
    """A device, a backend or a Python package that this machine does not have."""


class OptionError(WsiSamError):
    """The value of an option cannot be used.

    Attributes:
        option: the option's Python name.
        problem: what is wrong with its value and how to fix it; a clause that follows the option's
            name.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(option, problem)
        self.option = option
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.option}: {self.problem}"


class QuPathError(WsiSamError):
    """QuPath is missing, of an unsupported version, or failed."""


class QuPathTimeoutError(QuPathError):
    """QuPath did not answer in time, so its process was ended."""


class ProjectError(WsiSamError):
    """A QuPath project cannot be used as it is: damaged, locked, too new, or read-only."""


class ImageError(ProjectError):
    """One image of a project cannot be read or written; the others can."""


class MissingSlideError(ImageError):
    """The slide of an image is not where its project says."""

    helped_by = "remap"


class FormatError(WsiSamError):
    """A file that outlives a run was written by a newer version of this program."""


class OutputError(WsiSamError):
    """A result cannot be written to its destination."""


def pip_install(packages: str) -> str:
    """Spell the command that installs packages for the Python that runs this, in backticks."""
    python = f'"{sys.executable}"'
    if find_spec("pip") is None:  # as in environments that uv made
        return f"`uv pip install {packages} -p {python}`"
    return f"`{python} -m pip install {packages}`"


def pip_reinstall(packages: str) -> str:
    """Spell the command that replaces damaged packages, but nothing that they depend on."""
    return pip_install(packages).replace("pip install", "pip install --force-reinstall --no-deps")


TORCH_EXTRA = '"wsisam-qupath[torch]"'
"""The extra that installs PyTorch and the packages around it, for :func:`pip_install`."""

REINSTALL = f"Run {pip_reinstall('.')} in the folder of this program's source."
"""How to install the program again: it is on no package index."""


LONGEST = 1000
"""Longest text that is shown in full, characters: what should be a name may be a whole file."""


def escape(text: str, longest: int = LONGEST) -> str:
    """Show text as one line without control characters, cut to ``longest`` characters.

    Ids, class names and file names come from other people's files and may contain anything.
    """
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
