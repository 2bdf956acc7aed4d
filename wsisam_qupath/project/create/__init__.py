"""A folder of slides in, a QuPath project with their annotations out."""
