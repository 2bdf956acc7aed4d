"""Fixtures of the tests in this folder."""

from fixtures.job_servers import folder, project, server, workshop

__all__ = ["folder", "project", "server", "workshop"]
