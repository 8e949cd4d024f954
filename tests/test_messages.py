"""Every wrong command ends with one line in the words of the command line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from data.tokenizers import training

DRIVER = Path(__file__).parent / "drive_commands.py"
# What a caller of Python would write or read, and no user of main.py; a name of
# config.json is neither.
PYTHON = re.compile(
  r"(?<![\w.=-])(?!position_embedding_type)[a-z_]+=(True|False|None\b|['\"(\[])"
  r"|from_pretrained|<class|Traceback|\bargv\b|`\w+` argument"
)
CSV = (
  "--config.data.source_field=name",
  "--config.data.target_field=city",
)
BERT = "--config.model.encoder={tmp}/bert"
FILES = {
  "people.csv": b"name,city\nann,rome\n,paris\n",
  "tabs.csv": b"name\tcity\nann\trome\n",
  "semicolons.csv": b"name;city\nann;rome\n",
  "headless.csv": b"ann,rome\nbob,paris\n",
  "utf16.csv": "name,city\nann,rome\n".encode("utf-16"),
  "empty.jsonl": b'{"source": "a", "target": "b"}\n'
  b'{"source": "", "target": "b"}\n',
  "blank.jsonl": b'{"source": " ", "target": "b"}\n',
  "in.txt": b"a\n",
  "failing.py": b'def get_config(arg=""):\n  return arg + 1\n',
  "nothing.py": b"def get_config():\n  pass\n",
}
# Configs of folders: what of a small BERT's differs.
FOLDERS = {
  "bert": {},
  "heads": {"num_attention_heads": 5},
  "relative": {"position_embedding_type": "relative_key"},
  "acts": {"hidden_act": "sinc"},
  "t5": {"model_type": "t5"},
  "albert": {"model_type": "albert"},
}
# Arguments after a config and a workdir, and what the message holds.
COMMANDS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
  # The file and the flags.
  (
    ("--config=configs/quickstrat.py",),
    ("did you mean configs/quickstart.py",),
  ),
  (("--config=configs/dates.py:smok",), ("configs/dates.py:smok: the var",)),
  (("--config=configs",), ("--config=configs: ", "is a folder")),
  (("--config={tmp}/failing.py",), ("failing.py, line 2: TypeError: ",)),
  (("--config={tmp}/nothing.py",), ("--config: ", "returns a NoneType")),
  (("--config={tmp}/in.txt",), ("in.txt", "line 1: NameError")),
  (("--config.train.steps=3,4",), ("--config.train.steps=3,4: ", "whole")),
  (("--config.train.steps", "3,4"), ("--config.train.steps=3,4: ", "whole")),
  (("--config.optim.lr=fast",), ("--config.optim.lr=fast: ", "number")),
  (("--config.eval.permute_sources=yes",), ("=yes: ", "True or False")),
  (("--config.model.encoder=('a',)",), ("=('a',): ", "one text")),
  (("--config.train.stpes=3",), ("did you mean 'train.steps'",)),
  (("--config.model=3",), ("--config.model=3: model is a section",)),
  (("--train.steps=3",), ("did you mean '--config.train.steps'",)),
  (("--work_dir=x",), ("--work_dir: ", "did you mean '--workdir'")),
  (("train.steps=3",), ("'train.steps=3' is not a flag",)),
  (("--step=x", "--mode=eval"), ("--step=x: ", "whole number")),
  (("--mode=evaluate",), ("--mode=evaluate: ", "eval")),
  (("--overwrite=maybe",), ("--overwrite=maybe: ", "True or False")),
  (("--nooverwrite=3",), ("--nooverwrite=3 ",)),
  (("--step=3",), ("--step is not used by --mode=train",)),
  (("--process_id=4",), ("--process_id=4",)),
  (("--predictions=x",), ("--predictions is not used by --mode=train",)),
  # The data.
  (("--config.data.train=csv:{tmp}/people.csv",), ("data.train: ", "'source'")),
  (("--config.data.train=csv:{tmp}/tabs.csv", *CSV), ("tabs", ".tsv")),
  (("--config.data.train=csv:{tmp}/semicolons.csv", *CSV), ("semicolons",)),
  (("--config.data.train=csv:{tmp}/headless.csv", *CSV), ("line 1 names",)),
  (("--config.data.train=csv:{tmp}/utf16.csv", *CSV), ("UTF-16",)),
  (("--config.data.train=jsonl:{tmp}/people.csv",), ("did you mean 'csv:",)),
  (("--config.data.train={tmp}/people.csv",), ("data.train", "mean 'csv:")),
  (("--config.data.train=jsonl:{tmp}/empty.jsonl",), ("line 2: data.source_",)),
  (("--config.data.train=jsonl:{tmp}/blank.jsonl",), ("data.source_field",)),
  (("--config.data.train=jsonl:{tmp}/none.jsonl",), ("data.train: ", "none.j")),
  (("--config.data.train=dates@dev",), ("data.train: dates@dev",)),
  (
    ("--config.data.train=0.00001*dates@train[:9],1*dates@valid[:9]",),
    ("data.train", "1000 rows"),
  ),
  (("--config.data.eval=dates",), ("data.eval", "dates@train")),
  (("--config.data.test=a=nope@x",), ("data.test", "'nope' is no scheme")),
  (("--config.data.eval=csv:{tmp}/none.csv",), ("data.eval: ", "none.csv")),
  (("--config.data.source_field=src",), ("'src'", "data.source_field")),
  (("--config.data.source_tokenizer=none",), ("data.source_tokenizer: ",)),
  (("--config.data.store={tmp}/in.txt",), ("data.store = ", "is a file")),
  (
    ("--config.data.store=/proc/no",),
    ("data.store = '/proc/no': /proc/no cannot be made", "choose another path"),
  ),
  (
    (f"--config.data.store=/tmp/{'x' * 300}",),
    ("data.store = ", "File name too long"),
  ),
  (("--workdir=/proc/no/run",), ("--workdir=/proc/no/run: /proc/no cannot",)),
  (
    (f"--workdir=/tmp/{'x' * 300}",),
    ("--workdir=/tmp/xx", "cannot be made (File name too long)"),
  ),
  (("--config.data.source_buckets=a,b",), ("data.source_buckets = ",)),
  (("--config.data.source_vocab_size=10",), ("data.source_vocab_size = 10",)),
  # The model.
  (("--config.model.encoder=bert-tiny",), ("model.encoder: ", "'bert:tiny'")),
  (("--config.model.decoder=gpt2:tny",), ("model.decoder: gpt2:tny",)),
  (("--config.model.encoder=gpt2:tiny",), ("model.encoder = 'gpt2:tiny'",)),
  (("--config.model.encoder={tmp}/none",), ("model.encoder: ", "/none'")),
  (("--config=configs/date.py",), ("mean configs/dates.py?",)),
  (("--config.model.encoder={tmp}/t5",), ("model.encoder: ", "'t5'")),
  (("--config.model.encoder={tmp}/heads",), ("model.encoder = ", "heads=5")),
  (("--config.model.encoder={tmp}/relative",), ("model.encoder = ", "rel")),
  (("--config.model.encoder={tmp}/acts",), ("model.encoder = ", "'sinc'")),
  ((BERT,), ("model.encoder: ", "tokenizer")),
  (
    ("--config.model.encoder={tmp}/albert", "--config.model.encoder_layers=0"),
    ("model.encoder_layers=(0,)", "leave it out"),
  ),
  (
    (
      BERT,
      "--config.model.encoder_init=pretrained",
      "--config.model.encoder_positions=16",
    ),
    ("model.encoder_positions = 16: ", "has 32"),
  ),
  (
    (
      "--config.model.decoder=bert:tiny",
      "--config.data.target_vocab_size=1000",
      "--config.model.share=all",
      "--config.model.encoder_layers=0",
    ),
    ("model.share = 'all': the sides differ",),
  ),
  (("--config.model.remat=qkv+x",), ("model.remat = 'qkv+x'",)),
  (("--config.model.remat=x", "--mode=eval"), ("model.remat = 'x'",)),
  (("--config.model.attention=flash",), ("model.attention = 'flash'",)),
  (("--config.model.init_std=nan",), ("model.init_std = nan",)),
  (("--config.model.end_token=[no]",), ("model.end_token = '[no]'",)),
  (("--config.sharding.mlp=tensr",), ("sharding.mlp=('tensr',)",)),
  (("--config.mesh.data=3",), ("mesh.data=3",)),
  (("--config.optim.eps=0",), ("optim.eps=0.0",)),
  (("--config.optim.warmup_steps=6",), ("optim.warmup_steps=6",)),
  (("--config.optim.groups=encoder/*",), ("'encoder/*' is no group",)),
  (
    ("--config.optim.groups=encoder/*:lr=fast",),
    ("optim.groups", "lr must be a number from 0, not 'fast'"),
  ),
  (
    ("--config.optim.groups=encoders/*:frozen=true",),
    ("optim.groups: 'encoders/*' matches no parameter",),
  ),
  (
    ("--config.optim.groups=('*/mlp/*: lr=1', 'encoder/*: lr=2')",),
    ("optim.groups: '*/mlp/*' and 'encoder/*' both match",),
  ),
  (("--config.optim.groups=*:frozen=true",), ("freezes every parameter",)),
  (("--config.optim.name=adamm",), ("optim.name='adamm'", "muon")),
  (("--config.optim.schedule=wsd",), ("optim.decay_steps=0",)),
  # The other modes.
  (("--mode=eval",), ("--workdir=", "holds no run")),
  (("--mode=export",), ("--output is missing",)),
  (
    ("--mode=eval", "--predictions={tmp}/none.jsonl"),
    ("none.jsonl cannot be read",),
  ),
  (
    ("--mode=eval", "--predictions={tmp}/empty.jsonl"),
    ("empty.jsonl, line 1 is no prediction", "'prediction'"),
  ),
  (("--config.eval.metrics=rogue,bleu",), ("did you mean 'rouge'",)),
  (
    ("--config.train.best_metric=eval/valid/blue",),
    ("eval/valid/blue", "is not measured"),
  ),
  (("--mode=predict",), ("--input is missing",)),
  (
    ("--mode=predict", "--input={tmp}/people.csv", "--output={tmp}/out.jsonl"),
    ("--input: ", "people.csv: ", "no field 'source'"),
  ),
  (
    ("--mode=predict", "--input=people.doc", "--output={tmp}/out.jsonl"),
    ("--input=people.doc: ", ".csv, .jsonl"),
  ),
  (
    ("--mode=predict", "--input=txt:in.txt", "--output={tmp}/out.jsonl"),
    ("--input: ", "did you mean 'text:in.txt'"),
  ),
]


@pytest.fixture(scope="module")
def messages(tmp_path_factory, one_device_env):
  """(folder, what main.py said to each of COMMANDS)."""
  folder = tmp_path_factory.mktemp("messages")
  for name, raw in FILES.items():
    (folder / name).write_bytes(raw)
  bert = {
    "model_type": "bert",
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
  }
  for name, values in FOLDERS.items():
    if name != "bert":
      training.train_wordpiece(["a b c"], 300).save(str(folder / name))
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "config.json").write_text(json.dumps(bert | values))
  commands = [
    [
      "main.py",
      "--config=configs/dates.py:smoke",
      f"--workdir={folder}/run{number}",
      *(argument.replace("{tmp}", str(folder)) for argument in arguments),
    ]
    for number, (arguments, _) in enumerate(COMMANDS)
  ]
  done = subprocess.run(
    [sys.executable, DRIVER],
    input=json.dumps(commands),
    capture_output=True,
    text=True,
    timeout=500,
    env=one_device_env,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return folder, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
  "number", range(len(COMMANDS)), ids=[" ".join(a) for a, _ in COMMANDS]
)
def test_a_wrong_command_is_told_in_its_own_words(messages, number):
  folder, found = messages
  kind, message = found["answers"][number]
  assert kind == "refused", message
  for part in COMMANDS[number][1]:
    assert part in message
  assert "\n" not in message and len(message) < 1200
  assert not PYTHON.search(message.replace(str(folder), "")), message


def test_no_wrong_command_compiles(messages):
  assert messages[1]["compiled"] == 0


@pytest.mark.parametrize(
  "text",
  [
    "share='all': the sides differ",
    "pass initialise_missing=True to draw them",
    "load it with from_pretrained",
    "of type <class 'str'>",
  ],
)
def test_words_of_python_are_noticed(text):
  assert PYTHON.search(text)
  assert not PYTHON.search("--input=('a'), model.share='all', heads=5")
