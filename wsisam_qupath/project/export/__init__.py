"""A QuPath project in, a folder of annotations to train on out."""
