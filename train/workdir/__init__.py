"""What a run writes down beside its checkpoints, and who may write."""
