"""The status page for users; it shows nothing secret."""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2 import Template

from .. import __version__
from ..report.progress import duration
from ..report.templates import open_template
from .metrics import Finished
from .schemas import Info

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class _Row:
    ago: str
    prompts: int
    took: str
    status: int


def status_page(info: Info, *, url: str, in_hand: int, waiting: int, recent: list[Finished]) -> str:
    """Render the status page.

    Args:
        url: URL by which the reader called the server.
        in_hand, waiting: number of requests, and of pieces of work in the line.
    """
    now = time.time()
    rows = [
        _Row(
            f"{duration(now - one.at)} ago",
            one.prompts or 0,
            _format_seconds(one.seconds),
            one.status,
        )
        for one in recent
    ]
    return _template().render(
        info=info,
        url=url,
        in_hand=in_hand,
        waiting=waiting,
        rows=rows,
        version=__version__,
        style=_style(),
    )


def page_policy() -> str:
    """Make the page's Content-Security-Policy: its own style and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _format_seconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 10 else duration(seconds)


@lru_cache(maxsize=1)
def _template() -> Template:
    return open_template(__package__, "status.html.j2")


@lru_cache(maxsize=1)
def _style() -> str:
    return (_FOLDER / "status.css").read_text(encoding="utf-8")
