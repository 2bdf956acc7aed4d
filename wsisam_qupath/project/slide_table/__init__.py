"""Many slides without a project: a table of slides, and what became of each, in files beside it."""
