"""The ``create`` command: make a QuPath project from a folder of slides."""
