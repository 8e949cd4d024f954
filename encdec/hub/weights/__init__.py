"""Between the Hub's tensors and the parameter tree."""
