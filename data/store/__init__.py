"""Tokenised sets on disk: made once, verified, and read by number."""
