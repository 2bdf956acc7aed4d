"""Fixtures of the tests in this folder."""

from fixtures.homes import home, no_network

__all__ = ["home", "no_network"]
