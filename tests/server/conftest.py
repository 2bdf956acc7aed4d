"""Fixtures of the tests in this folder."""

from fixtures.segmenting import answer_to_box, client, segmenter, slide

__all__ = ["answer_to_box", "client", "segmenter", "slide"]
