"""A QuPath project in, detections written back."""
