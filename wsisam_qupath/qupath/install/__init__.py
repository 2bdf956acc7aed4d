"""Finds and installs QuPath and the scripts in its menu, without Java."""
