"""Folders that runs start from: an export, and saved models of two sides."""

import json

import pytest
import transformers

from data.tokenizers import training
from train.modes import export

pytestmark = pytest.mark.usefixtures("one_device")
TEXTS = ["red blue green", "black white brown", "pink grey 0123456789"] * 9


@pytest.fixture(scope="session")
def exported(finished, tmp_path_factory):
  """The export of a run with beams, as it was generated with."""
  config, folder, _ = finished
  output = tmp_path_factory.mktemp("exported") / "hub"
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.generation.num_beams = 3
    config.generation.min_length = 2
    config.generation.options = '{"repetition_penalty": 1.3}'
  export.run(config, str(folder), step=4, output=str(output))
  return output


@pytest.fixture
def folders(pairs_folder):
  """A BERT encoder and a GPT-2 decoder as `save_pretrained` leaves them."""
  wordpiece = training.train_wordpiece(TEXTS, 300)
  bpe = training.train_bpe(TEXTS, 270)
  encoder = transformers.BertModel(
    transformers.BertConfig(
      vocab_size=wordpiece.vocab_size,
      hidden_size=32,
      num_hidden_layers=2,
      num_attention_heads=2,
      intermediate_size=64,
    )
  )
  decoder = transformers.GPT2LMHeadModel(
    transformers.GPT2Config(
      vocab_size=bpe.vocab_size,
      n_embd=32,
      n_layer=2,
      n_head=2,
      bos_token_id=0,
      eos_token_id=0,
    )
  )
  for name, model, tokenizer in (
    ("bert", encoder, wordpiece),
    ("gpt2", decoder, bpe),
  ):
    model.save_pretrained(pairs_folder / name)
    tokenizer.save(str(pairs_folder / name))
  return pairs_folder, encoder, decoder


def write_words(path, *words):
  """A file of pairs of equal sides; gives its URI."""
  lines = [json.dumps({"source": w, "target": w}) + "\n" for w in words]
  path.write_text("".join(lines))
  return f"jsonl:{path}"
