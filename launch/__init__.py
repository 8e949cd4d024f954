"""How commands are started: one file a target."""
