"""Fixtures of the tests in this folder."""

from fixtures.file_servers import base, server

__all__ = ["base", "server"]
