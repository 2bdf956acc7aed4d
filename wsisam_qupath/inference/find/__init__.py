"""Find all objects like some examples, or of about one size, on a slide."""

from .finder import find_objects
from .search import MOST_EXAMPLES, Search, count_tiles
from .tiles import Region

__all__ = ["MOST_EXAMPLES", "Region", "Search", "count_tiles", "find_objects"]
