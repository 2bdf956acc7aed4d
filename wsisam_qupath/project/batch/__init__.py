"""The ``batch`` command: outline the prompts of a QuPath project and write the results back."""
