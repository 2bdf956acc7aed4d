"""Project jobs: the server runs a ``batch`` for a client."""
