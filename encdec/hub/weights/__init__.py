"""Converts Hub tensors to the parameter tree and back."""
