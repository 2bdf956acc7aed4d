"""QuPath itself, in a process of its own. Nothing outside of this package imports paquo."""
