"""QuPath: its project files, its classes in a Java process, its installation."""
