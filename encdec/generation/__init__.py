"""Searches over the steps of a model, and the programs that run them."""
