"""A training as one command: what it reads and takes, its folds, and what became of it."""
