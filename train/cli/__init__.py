"""The command line around a mode: flags, config file, signals, errors."""
