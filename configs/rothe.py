r"""Which pretrained halves help, and by how much (Rothe et al. 2020).

A task and a row of the paper's tables (arXiv 1907.12461):

  python main.py --config=configs/rothe.py:cnn_dailymail,bert2bert \
    --workdir=runs/bert2bert
  python main.py --config=configs/rothe.py:cnn_dailymail,bert2bert \
    --workdir=runs/bert2bert --mode=eval --config.eval.text_examples=0
  python main.py --config=configs/rothe.py:wmt14_ende,rnd2gpt,smoke \
    --workdir=runs/smoke                  # seconds, no network

eval.text_examples=0 measures the whole test set, not a sample as in training.

Expect (ROUGE-2 of the summaries, BLEU on newstest2014, SARI; "-": not run):

  | row                | CNN/DM |  XSum | Giga  | En-De | De-En | Disco | Wiki |
  |--------------------|--------|-------|-------|-------|-------|-------|------|
  | rnd2rnd            |  14.00 | 10.23 | 18.71 |  26.0 |  29.1 |  86.9 | 61.7 |
  | rnd2bert           |  15.55 | 11.52 | 18.91 |  27.2 |  30.4 |  87.6 | 61.8 |
  | bert2rnd           |  17.76 | 15.83 | 19.26 |  30.1 |  32.7 |  89.3 | 63.1 |
  | rnd2gpt            |   8.81 |  8.77 | 18.39 |  19.6 |  23.2 |  86.5 | 61.3 |
  | bert2bert          |  17.84 | 15.24 | 19.68 |  30.1 |  32.7 |  89.3 | 63.2 |
  | bertshare          |  18.10 | 16.12 | 19.81 |  29.6 |  32.6 |  89.2 | 63.5 |
  | robertashare       |  18.95 | 17.50 | 19.70 |     - |     - |  89.7 | 63.4 |
  | bert2gpt           |   4.96 |  8.37 | 18.23 |  23.2 |  31.4 |  88.4 | 62.4 |
  | roberta2gpt        |  14.72 |  5.20 | 19.21 |     - |     - |  89.9 | 63.2 |
  | robertashare_large |  18.91 | 18.79 | 19.78 |     - |     - |  90.3 | 63.8 |
  | bert2rnd_large     |      - |     - |     - |  31.7 |  34.2 |     - |    - |

DiscoFuse's are with all its data; with 10% of it (`[:10%]` behind the training
split) they are 3 to 6 points lower. The large rows stopped at about 100,000
steps in the paper, which --config.train.steps says here. BLEU is uncased, as
that of TensorFlow's official transformer, which also makes quotes ascii: here
quotes are not normalised. SARI is tensor2tensor's form (eval.sari_form), there
of subword ids and here of words: figures differ somewhat. The last row's BERT,
of 32,000 En-De pieces, was not published: bert-large-cased stands in its place,
and model.encoder and model.decoder name a better one.

Data, none of which could be tried where this was written, without a network:

  cnn_dailymail, gigaword, wmt14 (any machine that has TensorFlow, once):
    tfds build cnn_dailymail gigaword wmt14_translate/de-en \
      --file_format=array_record
  xsum (pip install 'datasets>=4'): nothing, hf: downloads it
  the next two, first: mkdir -p data/discofuse data/wikisplit
  discofuse, the balanced Wikipedia part of Geva et al. 2019, unpacked:
    for s in train dev test; do awk -F'\t' -v s=$s 'NR > 1 {
      print $3, $4 > "data/discofuse/" s ".source"
      print $1, $2 > "data/discofuse/" s ".target"}' ${s}_balanced.tsv; done
  wikisplit, google-research-datasets/wiki-split, unpacked:
    for s in train validation test; do cut -f1 $s.tsv \
      > data/wikisplit/$s.source; cut -f2 $s.tsv | sed 's/ <::::>//' \
      > data/wikisplit/$s.target; done

Hardware: the batch is the paper's, 128 or 256 pairs; four chips of 16 GB hold
it, one with --config.train.accumulate_steps=8. Time: the paper says 3 minutes
per 1,000 steps on TPUs. CNN/DailyMail's 38 million pairs are at least 31 hours
of one TPU v5e (575 GFLOP a pair with remat, at 197 TFLOP/s: a bound), so 2 of
16 chips; what a run takes is not known.

Not in the paper: its beams and length penalty outside translation (those of
translation are taken), label smoothing and decay (none).
"""

from typing import Any, NamedTuple

from configs import common, smoke

GPT2 = "openai-community/gpt2"
ROBERTA = "FacebookAI/roberta-base"
ROBERTA_LARGE = "FacebookAI/roberta-large"
# Stands for the BERT that a task takes.
BERT, BERT_LARGE = "bert", "bert-large"
# Of 4,508,785 pairs.
_WMT14_STEPS = 30 * 4_508_785 // 256


class Row(NamedTuple):
  """A pair as the paper makes it; a random side has a checkpoint's shape."""

  encoder: str
  decoder: str
  share: str = "none"
  random: tuple[str, ...] = ()


# What shares embeddings has the parameters that the paper counts.
ROWS = {
  "rnd2rnd": Row(BERT, BERT, "embeddings", ("encoder", "decoder")),
  "rnd2bert": Row(BERT, BERT, "embeddings", ("encoder",)),
  "bert2rnd": Row(BERT, BERT, "embeddings", ("decoder",)),
  "rnd2gpt": Row("bert:base", GPT2, "embeddings", ("encoder",)),
  "bert2bert": Row(BERT, BERT, "embeddings"),
  "bertshare": Row(BERT, BERT, "all"),
  "robertashare": Row(ROBERTA, ROBERTA, "all"),
  "bert2gpt": Row(BERT, GPT2),
  "roberta2gpt": Row(ROBERTA, GPT2),
  "robertashare_large": Row(ROBERTA_LARGE, ROBERTA_LARGE, "all"),
  "bert2rnd_large": Row(BERT_LARGE, BERT_LARGE, "embeddings", ("decoder",)),
}


class Task(NamedTuple):
  """A data set, its lengths, and how long it is trained on.

  `splits` are of training, validation and test.
  """

  uri: str
  fields: tuple[str, str] = ("source", "target")
  splits: tuple[str, str, str] = ("train", "validation", "test")
  lengths: tuple[int, int] = (128, 128)
  batch_size: int = 256
  steps: int = 300_000
  bert: str = "cased"
  metrics: tuple[str, ...] = ("sari", "exact_match")


_WMT14 = "tfds:wmt14_translate/de-en@{split}"
TASKS = {
  "cnn_dailymail": Task(
    uri="tfds:cnn_dailymail@{split}",
    fields=("article", "highlights"),
    lengths=(512, 128),
    batch_size=128,
    steps=300_000,
    metrics=("rouge",),
  ),
  "xsum": Task(
    uri="hf:EdinburghNLP/xsum@{split}",
    fields=("document", "summary"),
    lengths=(512, 64),
    batch_size=128,
    steps=200_000,
    metrics=("rouge",),
  ),
  "gigaword": Task(
    uri="tfds:gigaword@{split}",
    fields=("document", "summary"),
    lengths=(128, 32),
    steps=500_000,
    bert="uncased",
    metrics=("rouge",),
  ),
  "wmt14_ende": Task(
    uri=_WMT14,
    fields=("en", "de"),
    steps=_WMT14_STEPS,
    bert="multilingual-cased",
    metrics=("bleu",),
  ),
  "wmt14_deen": Task(
    uri=_WMT14,
    fields=("de", "en"),
    steps=_WMT14_STEPS,
    bert="multilingual-cased",
    metrics=("bleu",),
  ),
  "discofuse": Task(
    uri="text:data/discofuse/{split}.source::data/discofuse/{split}.target@all",
    splits=("train", "dev", "test"),
  ),
  "wikisplit": Task(
    uri="text:data/wikisplit/{split}.source::data/wikisplit/{split}.target@all",
  ),
}


def get_config(arg: str = "") -> Any:
  """`arg`: a task, a row and "smoke", as "xsum,bertshare,smoke".

  What is left out is "cnn_dailymail", "bert2bert" and the whole size.
  """
  task_name, row_name, is_smoke = _parse(arg)
  task, row = TASKS[task_name], ROWS[row_name]
  config = common.get_config()
  _set_model(config, task, row)
  _set_data(config, task)

  config.train.batch_size = task.batch_size
  config.train.steps = task.steps
  config.train.loss_chunks = 4
  config.train.log_every_steps = 100
  config.train.eval_every_steps = 10_000
  config.train.checkpoint_every_steps = 2_000
  # What the paper compares rows by.
  best = "rouge2" if task.metrics == ("rouge",) else task.metrics[0]
  config.train.best_metric = f"eval/valid/{best}"
  config.train.best_mode = "max"

  # Adam at 0.05 * width^-0.5 * step^-0.5: a peak of 9e-6 at width 768.
  config.optim.name = "adam"
  config.optim.lr = 0.05
  config.optim.schedule = "noam"
  config.optim.warmup_steps = 40_000

  config.generation.max_length = task.lengths[1] + 1
  config.generation.num_beams = 4
  config.generation.scoring = "gnmt"
  config.generation.length_penalty = 0.6

  config.eval.batch_size = 64
  config.eval.text_examples = 1000
  config.eval.metrics = task.metrics
  if "rouge" in task.metrics:
    # A text is one line: BERT's tokenizers have none for the ends of lines.
    config.eval.rouge_sentences = "split"
  if "bleu" in task.metrics:
    config.eval.lowercase = True
  if "sari" in task.metrics:
    config.eval.sari_form = "tensor2tensor"
  if is_smoke:
    _smoke(config, row)
  return config


def _parse(arg: str) -> tuple[str, str, bool]:
  words = [word for word in arg.split(",") if word]
  tasks = [word for word in words if word in TASKS]
  rows = [word for word in words if word in ROWS]
  known = len(tasks) + len(rows) + words.count("smoke")
  if len(tasks) > 1 or len(rows) > 1 or known < len(words):
    raise ValueError(
      f"configs/rothe.py:{arg}: the variants are: smoke, and one task of "
      f"{', '.join(TASKS)}, and one row of {', '.join(ROWS)}, joined by commas"
    )
  return (
    tasks[0] if tasks else "cnn_dailymail",
    rows[0] if rows else "bert2bert",
    "smoke" in words,
  )


def _set_model(config: Any, task: Task, row: Row) -> None:
  large = "cased" if task.bert == "multilingual-cased" else task.bert
  names = {
    BERT: f"google-bert/bert-base-{task.bert}",
    BERT_LARGE: f"google-bert/bert-large-{large}",
  }
  config.model.encoder = names.get(row.encoder, row.encoder)
  config.model.decoder = names.get(row.decoder, row.decoder)
  config.model.share = row.share
  for side in row.random:
    config.model[f"{side}_init"] = "random"
  if ":" in row.encoder:
    # A preset reads the decoder's tokens.
    config.data.source_tokenizer = row.decoder
    config.data.target_tokenizer = row.decoder
    config.data.source_vocab_size = 50257
    config.data.target_vocab_size = 50257
  config.model.dtype = "bfloat16"
  config.model.remat = "ctx"


def _set_data(config: Any, task: Task) -> None:
  train, valid, test = (task.uri.format(split=name) for name in task.splits)
  config.data.train = train
  config.data.eval = f"valid={valid}"
  config.data.test = f"test={test}"
  config.data.source_field, config.data.target_field = task.fields
  config.data.max_source_length, config.data.max_target_length = task.lengths


def _smoke(config: Any, row: Row) -> None:
  smoke.shrink(config)
  for side, name in (("encoder", row.encoder), ("decoder", row.decoder)):
    kinds = {GPT2: "gpt2", ROBERTA: "roberta", ROBERTA_LARGE: "roberta"}
    config.model[side] = f"{kinds.get(name, 'bert')}:tiny"
  config.generation.max_length = 17
