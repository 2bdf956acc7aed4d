"""Fixtures of the tests in this folder."""

from fixtures.exports import export, slides

__all__ = ["export", "slides"]
