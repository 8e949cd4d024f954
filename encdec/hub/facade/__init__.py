"""FlaxEncoderDecoderModel, a class with transformers' names, in parts."""
