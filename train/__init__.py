"""How the model is optimised."""
