"""Find all objects like some examples, or of about one size, on a slide."""

from .finder import MOST_EXAMPLES, Search, find_objects

__all__ = ["MOST_EXAMPLES", "Search", "find_objects"]
