"""Fixtures of the tests in this folder."""

from fixtures.project_files import slide

__all__ = ["slide"]
