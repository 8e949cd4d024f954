r"""BertSumAbs: a BERT with a new decoder, and a learning rate for each.

Liu and Lapata 2019, "Text Summarization with Pretrained Encoders":

  python main.py --config=configs/bertsum.py:cnn_dailymail \
    --workdir=runs/bertsum
  python main.py --config=configs/bertsum.py:cnn_dailymail \
    --workdir=runs/bertsum --mode=eval --config.eval.text_examples=0
  python main.py --config=configs/bertsum.py:xsum,smoke \
    --workdir=runs/smoke                  # seconds, no network

eval.text_examples=0 measures the whole test set, not a sample as in training.

Expect (ROUGE-1/2/L of the test set): CNN/DailyMail 41.72/19.39/38.76, XSum
38.76/16.33/31.15.

Data: jsonl files of an article, with a sentence a line, and its summary, which
this makes (pip install 'datasets>=4'; it was not tried, for want of a network):

  import json, pathlib, re, datasets
  name, parts, folder = "abisee/cnn_dailymail", ["3.0.0"], "cnn_dailymail"
  # XSum: "EdinburghNLP/xsum", [], "xsum"
  pathlib.Path("data/bertsum", folder).mkdir(parents=True, exist_ok=True)
  for split, rows in datasets.load_dataset(name, *parts).items():
    with open(f"data/bertsum/{folder}/{split}.jsonl", "w") as file:
      for row in rows:
        text, summary = list(row.values())[:2]
        text = re.sub(r"(?<=[.!?]) +(?=[A-Z\"'])", "\n", text)
        file.write(json.dumps({"source": text, "target": summary}) + "\n")

Hardware: one accelerator with 16 GB, a fifth of a batch at a time as in the
paper. Time: not known.

The model: bert-base-uncased, whose sentences have the types 0 and 1 by turns
(data.source_types), and a decoder of 6 layers whose token table, also that of
the head, starts as a copy of BERT's (model.decoder_embeddings_init). It is a
Pegasus decoder, which PyTorch loads, and differs from the paper's in this:

  - sines stand in the first half of a position's row and cosines in the second,
    where the paper's alternate; norms have an epsilon of 1e-5, not 1e-6;
  - the head has no bias;
  - a regular expression tells sentences apart, not CoreNLP;
  - a text begins with [CLS] and ends with [SEP], not [unused0] and [unused1],
    and no [unused2] stands between its sentences;
  - a batch has 160 pairs, where the paper counts it by the length of texts.
"""

from typing import Any

from configs import common, smoke

BERT = "google-bert/bert-base-uncased"
TASKS = ("cnn_dailymail", "xsum")


def get_config(arg: str = "") -> Any:
  """`arg`: "cnn_dailymail" or "xsum", and "smoke", as "xsum,smoke"."""
  words = [word for word in arg.split(",") if word]
  tasks = [word for word in words if word in TASKS]
  if len(tasks) > 1 or len(tasks) + words.count("smoke") < len(words):
    raise ValueError(
      f"configs/bertsum.py:{arg}: the variants are: smoke, and one of "
      f"{', '.join(TASKS)}, joined by a comma"
    )
  task = tasks[0] if tasks else "cnn_dailymail"
  config = common.get_config()
  config.model.encoder = BERT
  config.model.decoder = "pegasus:bertsum"
  config.model.decoder_init = "random"
  config.model.decoder_embeddings_init = "encoder"
  config.model.dtype = "bfloat16"
  config.model.remat = "ctx"

  folder = f"data/bertsum/{task}"
  config.data.train = f"jsonl:{folder}/train.jsonl"
  config.data.eval = f"valid=jsonl:{folder}/validation.jsonl"
  config.data.test = f"test=jsonl:{folder}/test.jsonl"
  config.data.source_types = "sentences"
  config.data.source_tokenizer = BERT
  config.data.target_tokenizer = BERT
  # BERT's, where its files are not at hand (launch/aot.py).
  config.data.source_vocab_size = config.data.target_vocab_size = 30522
  config.data.max_source_length = 512
  config.data.max_target_length = 200 if task == "cnn_dailymail" else 100

  config.train.batch_size = 160
  config.train.accumulate_steps = 5
  config.train.steps = 200_000
  config.train.label_smoothing = 0.1
  config.train.smoothing_form = "opennmt"
  config.train.loss_chunks = 4
  config.train.log_every_steps = 50
  config.train.eval_every_steps = 2_000
  config.train.checkpoint_every_steps = 2_000

  # At update n 0.002 * min(n^-0.5, n * 20000^-1.5) for the encoder.
  config.optim.name = "adam"
  config.optim.lr = 0.002
  config.optim.schedule = "noam_unscaled"
  config.optim.warmup_steps = 20_000
  config.optim.groups = ("decoder/*: lr=0.2, warmup_steps=10000",)
  config.optim.eps = 1e-9

  _set_generation(config, task)
  config.eval.batch_size = 64
  config.eval.text_examples = 500
  config.eval.metrics = ("rouge",)
  # A text is one line: its tokenizer has none for the ends of lines.
  config.eval.rouge_sentences = "split"
  if "smoke" in words:
    _smoke(config)
  return config


def _set_generation(config: Any, task: str) -> None:
  config.generation.num_beams = 5
  config.generation.scoring = "gnmt"
  config.generation.block_trigrams = True
  # Tokens of a text, and the one that starts it.
  if task == "cnn_dailymail":
    config.generation.length_penalty = 0.95
    config.generation.min_length = 51
    config.generation.max_length = 201
  else:
    config.generation.length_penalty = 0.9
    config.generation.min_length = 21
    config.generation.max_length = 101


def _smoke(config: Any) -> None:
  smoke.shrink(config)
  config.model.encoder = "bert:tiny"
  config.model.decoder = "pegasus:tiny"
  # A random encoder has no table to copy.
  config.model.decoder_embeddings_init = ""
  config.train.accumulate_steps = 1
  config.optim.groups = ("decoder/*: lr_scale=2",)
  config.generation.min_length = 4
  config.generation.max_length = 17
