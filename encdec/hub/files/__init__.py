"""Files of the Hub: weights on disk, read with suspicion and written whole."""
