"""Annotated images in the formats that people have them in, as :class:`.dataset.Dataset`."""
