"""Fixtures of the tests in this folder."""

from fixtures.engine_runs import serial

__all__ = ["serial"]
