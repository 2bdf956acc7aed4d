"""The options of ``train`` and ``evaluate``."""
