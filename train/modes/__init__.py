"""What `--mode` names: one file a mode, and what only modes need."""
