"""BERT to GPT-2 on CNN/DailyMail, from pretrained weights (Rothe et al. 2020).

  python main.py --config=configs/bert2gpt2_cnn_dailymail.py \
    --workdir=runs/bert2gpt2
  python main.py --config=configs/bert2gpt2_cnn_dailymail.py:pod \
    --workdir=/shared/bert2gpt2           # on every host, a folder all see
  python main.py --config=configs/bert2gpt2_cnn_dailymail.py:smoke \
    --workdir=runs/smoke                  # seconds, no network

Hardware: one accelerator with 16 GB; "pod": 32 to 128 chips. The recipe is
that of BERT to BERT; the GPT-2 decoder scores lower: expect ROUGE-2 of 15,
as discuss.huggingface.co t/835 reports with beams. The paper's own recipe is
configs/rothe.py:cnn_dailymail,bert2gpt.
"""

from typing import Any

from configs import bert2bert_cnn_dailymail


def get_config(arg: str = "") -> Any:
  """`arg`: "" for one accelerator, "pod", or "smoke"."""
  if arg not in ("", "pod", "smoke"):
    raise ValueError(
      f"configs/bert2gpt2_cnn_dailymail.py:{arg}: the variants are: pod, smoke"
    )
  config = bert2bert_cnn_dailymail.get_config(arg)
  if arg == "smoke":
    config.model.decoder = "gpt2:tiny"
  else:
    config.model.encoder = "google-bert/bert-base-cased"
    config.model.decoder = "openai-community/gpt2"
  return config
