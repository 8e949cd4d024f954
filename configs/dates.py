"""Dates in words to ISO form: a task that a right model learns to the end.

  python main.py --config=configs/dates.py --workdir=runs/dates
  python main.py --config=configs/dates.py --workdir=runs/dates --mode=eval

Hardware: two CPU cores. Time: about three minutes. Expect: exact match of at
least 0.99 on 1,000 held-out dates, and below 0.05 with
--config.eval.permute_sources.
"""

from typing import Any

from configs import common


def get_config(arg: str = "") -> Any:
  """`arg`: "smoke" for seconds instead of minutes."""
  config = common.get_config()
  config.model.encoder = "bert:tiny"
  config.model.decoder = "gpt2:tiny"
  config.model.encoder_init = "random"
  config.model.decoder_init = "random"
  config.model.dropout = 0.0
  config.model.init_std = 0.05

  config.data.train = "dates@train"
  config.data.eval = "valid=dates@valid"
  config.data.test = "test=dates@test"
  config.data.max_source_length = 16
  config.data.max_target_length = 12
  config.data.source_vocab_size = 1000
  # Few merges: the digits of a year stay apart.
  config.data.target_vocab_size = 270

  config.train.steps = 1000
  config.train.batch_size = 64
  config.train.log_every_steps = 50
  config.train.eval_every_steps = 500
  config.train.checkpoint_every_steps = 500

  config.optim.lr = 2e-3
  config.optim.schedule = "cosine"
  config.optim.warmup_steps = 100
  config.optim.b2 = 0.98
  config.optim.weight_decay = 0.01
  config.optim.clip_norm = 1.0

  config.eval.batch_size = 250

  if arg == "smoke":
    config.train.steps = 6
    config.train.batch_size = 8
    config.train.log_every_steps = 2
    config.train.eval_every_steps = 3
    config.train.checkpoint_every_steps = 3
    config.optim.warmup_steps = 2
    config.data.train = "dates@train[:500]"
    config.data.eval = "valid=dates@valid[:20]"
    config.data.test = "test=dates@test[:20]"
    config.eval.batch_size = 8
  elif arg:
    raise ValueError(f"configs/dates.py:{arg}: the variants are: smoke")
  return config


def get_hyper() -> list[dict]:
  """A sweep over the learning rate; 2e-3 is the winner."""
  return [{"optim.lr": lr} for lr in (5e-4, 2e-3, 5e-3)]
