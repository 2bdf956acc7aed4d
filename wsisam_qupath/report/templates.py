"""The HTML templates of pages: everything is escaped, and a value that is missing is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import escape

if TYPE_CHECKING:
    from jinja2 import Template


def open_template(package: str, name: str, **filters: Callable[..., object]) -> Template:
    """Open a template that lies in a package.

    Args:
        filters: filters that it has beside ``one_line``, which makes any text one line of bounded
            length.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # 0.1 s

    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"one_line": _make_one_line, **filters}
    return environment.get_template(name)


def _make_one_line(text: object, longest: int = 200) -> str:
    return escape(str(text), longest)
