"""A tiny run on pairs of a file, shared by the tests of the loop."""

import json

import jax
import pytest
import torch
import transformers

from configs import dates
from train import loop, mesh, start
from train.setup import trained

WORDS = ("red", "blue", "green", "black", "white", "brown", "pink", "grey")


def write_pairs(path, count=61):
  """Colours and their number: lines of `count` pairs, all different."""
  with open(path, "w", encoding="utf-8") as file:
    for i in range(count):
      words = [WORDS[i % 8], WORDS[i // 8 % 8], str(i)]
      pair = {"source": " ".join(words), "target": f"{words[0]} {i % 10}"}
      file.write(json.dumps(pair) + "\n")


def tiny(folder):
  """A configuration whose data lie in `folder`; four steps."""
  config = dates.get_config("smoke")
  # Large weights that hardly move: what is generated depends on the source.
  config.model.init_std = 0.2
  config.optim.lr = 1e-4
  config.data.train = f"jsonl:{folder}/pairs.jsonl"
  config.data.eval = f"valid=jsonl:{folder}/pairs.jsonl@all[:21]"
  config.data.test = ""
  config.data.source_vocab_size = 300
  config.data.target_vocab_size = 270
  config.data.max_source_length = 16
  config.data.max_target_length = 8
  config.train.steps = 4
  config.train.log_every_steps = 1
  config.train.eval_every_steps = 2
  config.train.checkpoint_every_steps = 2
  return config


@pytest.fixture
def pairs_count() -> int:
  return 61


@pytest.fixture
def pairs_folder(tmp_path, pairs_count):
  write_pairs(tmp_path / "pairs.jsonl", pairs_count)
  return tmp_path


@pytest.fixture
def tiny_config(pairs_folder):
  return tiny(pairs_folder)


def use_one_device(monkeypatch):
  """Meshes of one device: a program for eight takes longer to compile."""
  make_mesh = mesh.make_mesh
  for module in (start, trained):
    monkeypatch.setattr(
      module, "make_mesh", lambda sizes: make_mesh(sizes, jax.devices()[:1])
    )


@pytest.fixture
def one_device(monkeypatch):
  use_one_device(monkeypatch)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
  """(config, folder of the run, what it returned); do not write there."""
  folder = tmp_path_factory.mktemp("finished")
  write_pairs(folder / "pairs.jsonl")
  config = tiny(folder)
  with pytest.MonkeyPatch.context() as monkeypatch:
    use_one_device(monkeypatch)
    result = loop.run(config, str(folder / "run"))
  return config, folder / "run", result


@pytest.fixture
def compilations():
  """A list that grows by one with each program that is compiled."""
  events = []

  def listen(event, duration, **unused):
    if event == "/jax/core/compile/backend_compile_duration":
      events.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield events
  jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def assert_pytorch_generates():
  """`assert_pytorch_generates(folder, samples)`: the run's own texts.

  Args:
    folder: of an export.
    samples: the file of what evaluation has generated.

  Returns:
    PyTorch's model.
  """

  def check(folder, samples):
    model, info = transformers.EncoderDecoderModel.from_pretrained(
      str(folder), output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    load = transformers.AutoTokenizer.from_pretrained
    source = target = load(str(folder))
    if (folder / "target_tokenizer").exists():
      target = load(str(folder / "target_tokenizer"))
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    batch = source([row["source"] for row in rows], padding=True)
    with torch.no_grad():
      tokens = model.eval().generate(
        torch.tensor(batch["input_ids"]),
        attention_mask=torch.tensor(batch["attention_mask"]),
      )
    texts = target.batch_decode(tokens, skip_special_tokens=True)
    assert texts == [row["prediction"] for row in rows]
    # Texts that depend on their source, or equality would prove little.
    assert len(set(texts)) > 2
    return model

  return check
