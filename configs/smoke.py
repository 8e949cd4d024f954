"""What recipes' smoke variants have in common: a run of seconds, anywhere."""

from typing import Any


def shrink(config: Any) -> None:
  """Makes a recipe a run of four steps on built-in data, without a network.

  The models, which a recipe's own variant chooses, are presets.
  """
  config.model.encoder_init = "random"
  config.model.decoder_init = "random"
  config.data.train = "pydoc@train[:500]"
  config.data.eval = "valid=pydoc@valid[:20]"
  config.data.test = "test=pydoc@test[:20]"
  config.data.source_field = "source"
  config.data.target_field = "target"
  config.data.source_tokenizer = ""
  config.data.target_tokenizer = ""
  config.data.source_vocab_size = 1000
  config.data.target_vocab_size = 1000
  config.data.max_source_length = 32
  config.data.max_target_length = 16
  config.train.batch_size = 8
  config.train.steps = 4
  config.train.log_every_steps = 2
  config.train.eval_every_steps = 2
  config.train.checkpoint_every_steps = 2
  config.optim.warmup_steps = 2
  config.eval.batch_size = 8
  config.eval.text_examples = 8
