"""Fixtures of the tests in this folder."""

from fixtures.batch_projects import created, project

__all__ = ["created", "project"]
