"""Many slides without a project: a table of slides, and the outcome of each in files beside it."""
