"""The building blocks of both stacks, one noun a file."""
