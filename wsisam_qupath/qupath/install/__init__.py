"""Finds and installs QuPath, and the scripts in its menu. Without Java."""
