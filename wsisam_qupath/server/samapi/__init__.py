"""Answers the SAM extension for QuPath (ksugar/qupath-extension-sam) in place of its own server."""
