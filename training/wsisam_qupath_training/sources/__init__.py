"""Read annotated images in many formats, as :class:`.dataset.Dataset`."""
