"""What a run shows while it runs: speed, a bar, metrics read late."""
