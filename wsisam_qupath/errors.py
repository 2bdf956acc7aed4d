"""Everything that can go wrong in a way that a user can cure.

::

    WsiSamError
    ├── SlideError      a slide is missing or damaged
    │   └── PixelSizeError  it states no µm/px, and nobody else does
    ├── PromptError     a prompts file cannot be read, or holds nothing usable
    ├── WeightsError    base weights are missing, unreachable, or have a wrong checksum
    ├── AdapterError    an adapter is damaged, or made for another base
    ├── DeviceError     a device or backend that this machine does not have
    ├── OptionError     an option is out of its range
    ├── QuPathError     QuPath is missing, of a version that is not supported, or failed
    ├── ProjectError    a QuPath project cannot be used as it is
    │   └── ImageError  one image of it cannot; the others can
    └── OutputError     a result cannot be written where it was asked for

Each message is one or two sentences for the user: what is wrong, and what cures it. The command
line prints the message and exits with 2; a programmer catches :class:`WsiSamError`.
"""


class WsiSamError(Exception):
    """Base of all errors that this package raises for a reason outside of itself."""


class SlideError(WsiSamError):
    """A slide is missing, damaged, or cannot be used as it is."""


class PixelSizeError(SlideError):
    """A slide states no µm/px, and nobody else does."""


class PromptError(WsiSamError):
    """Prompts cannot be read, or none of them can be used."""


class WeightsError(WsiSamError):
    """Base weights are missing, unreachable, or do not have the expected checksum."""


class AdapterError(WsiSamError):
    """An adapter is damaged, or was made for another base."""


class DeviceError(WsiSamError):
    """A device or backend that this machine does not have."""


class OptionError(WsiSamError):
    """An option is out of its range."""


class QuPathError(WsiSamError):
    """QuPath is missing, of a version that is not supported, or failed at something."""


class ProjectError(WsiSamError):
    """A QuPath project cannot be used as it is: damaged, locked, too new, or read-only."""


class ImageError(ProjectError):
    """One image of a project cannot be used or written; nothing keeps the others from it."""


class OutputError(WsiSamError):
    """A result cannot be written where it was asked for."""


LONGEST = 1000
"""Longer words than these are cut: a whole file may stand in the place of a name."""


def escape(text: str, longest: int = LONGEST) -> str:
    """The text on one line, without what a terminal obeys instead of showing it.

    Ids, classes and names of files come from others, and may hold anything.
    """
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
