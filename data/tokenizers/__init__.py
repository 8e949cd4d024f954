"""Tokenizers: loaded, trained, their languages, and what they can write."""
