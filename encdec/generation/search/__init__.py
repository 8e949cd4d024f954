"""Searches over a function that scores next tokens; none knows a model."""
