"""The HTTP server: slides or pixels and prompts in, outlines out."""
