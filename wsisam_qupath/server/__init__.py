"""The HTTP server: takes slides or pixels and prompts, and returns outlines."""
