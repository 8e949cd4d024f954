"""What a run is made of: model, weights, tokenizers, languages, data."""
