"""QuPath's project files, read and checked without Java."""
