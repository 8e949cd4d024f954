"""What is seen: sources, tokenizers, examples, and the batch of each step."""
