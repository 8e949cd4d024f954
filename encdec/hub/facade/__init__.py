"""FlaxEncoderDecoderModel: Hugging Face's names around the module, in parts."""
