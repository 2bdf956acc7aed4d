"""Fixtures of the tests in this folder."""

from fixtures.bare_project import full_disk, project
from fixtures.images import disk, image

__all__ = ["disk", "full_disk", "image", "project"]
