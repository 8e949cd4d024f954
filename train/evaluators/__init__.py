"""What is measured on held-out sets: losses and generated text."""
