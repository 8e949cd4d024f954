"""BERT to BERT on CNN/DailyMail, from pretrained weights (Rothe et al. 2020).

  python main.py --config=configs/bert2bert_cnn_dailymail.py \
    --workdir=runs/bert2bert
  python main.py --config=configs/bert2bert_cnn_dailymail.py:pod \
    --workdir=/shared/bert2bert           # on every host, a folder all see
  python main.py --config=configs/bert2bert_cnn_dailymail.py:smoke \
    --workdir=runs/smoke                  # seconds, no network

Hardware: one accelerator with 16 GB; "pod": 32 to 128 chips. The recipe is
that of patrickvonplaten/bert2bert_cnn_daily_mail, which took 8 hours on a
TITAN RTX. Expect: its card's ROUGE-2 of 18.2, with the same four beams. The
paper's own recipe is configs/rothe.py:cnn_dailymail,bert2bert.
"""

from typing import Any

from configs import common, smoke

TRAIN_PAIRS = 287_113


def get_config(arg: str = "") -> Any:
  """`arg`: "" for one accelerator, "pod", or "smoke"."""
  config = common.get_config()
  config.model.encoder = "google-bert/bert-base-uncased"
  config.model.decoder = "google-bert/bert-base-uncased"
  config.model.dtype = "bfloat16"
  config.model.remat = "full"

  config.data.train = "tfds:cnn_dailymail@train"
  config.data.eval = "valid=tfds:cnn_dailymail@validation[:1000]"
  config.data.test = "test=tfds:cnn_dailymail@test"
  config.data.source_field = "article"
  config.data.target_field = "highlights"
  config.data.max_source_length = 512
  config.data.max_target_length = 128

  config.train.batch_size = 16
  config.train.steps = 3 * TRAIN_PAIRS // 16
  config.train.log_every_steps = 100
  config.train.eval_every_steps = 5000
  config.train.checkpoint_every_steps = 1000
  config.train.loss_chunks = 4
  config.train.best_metric = "eval/valid/rouge2"
  config.train.best_mode = "max"

  config.optim.lr = 5e-5
  config.optim.schedule = "linear"
  config.optim.warmup_steps = 2000
  config.optim.clip_norm = 1.0

  config.generation.max_length = 142
  config.generation.min_length = 56
  config.generation.num_beams = 4
  config.generation.length_penalty = 2.0
  config.generation.no_repeat_ngram_size = 3
  config.generation.early_stopping = "true"

  config.eval.batch_size = 32
  config.eval.text_examples = 200

  if arg == "pod":
    # Eight times the batch, an eighth of the steps, the root of eight in lr.
    config.train.batch_size = 128
    config.train.steps = 3 * TRAIN_PAIRS // 128
    config.train.eval_every_steps = 1000
    config.train.checkpoint_every_steps = 500
    config.optim.lr = 1.4e-4
    config.optim.warmup_steps = 500
    config.eval.batch_size = 256
    config.eval.text_examples = 0
  elif arg == "smoke":
    _smoke(config)
  elif arg:
    raise ValueError(
      f"configs/bert2bert_cnn_dailymail.py:{arg}: the variants are: pod, smoke"
    )
  return config


def _smoke(config: Any) -> None:
  smoke.shrink(config)
  config.model.encoder = "bert:tiny"
  config.model.decoder = "bert:tiny"
  config.generation.max_length = 17
  config.generation.min_length = 4
