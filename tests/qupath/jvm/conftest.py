"""Fixtures of the tests in this folder."""

from fixtures.qupath_builders import project

__all__ = ["project"]
