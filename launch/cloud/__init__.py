"""What the launchers for Google Cloud have in common: machines and folders."""
