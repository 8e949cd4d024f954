"""How the model is optimised: the step, the state, and the loop around them."""
