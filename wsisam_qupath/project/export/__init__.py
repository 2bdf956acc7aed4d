"""The ``export`` command: write a project's reviewed annotations as training data."""
