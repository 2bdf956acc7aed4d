"""A QuPath project as files: what can be read, guarded and replaced without a Java machine."""
