"""Project jobs of the server: ``batch`` on behalf of a client."""
