"""Tokenizers of a run: trained on its texts, one where sides share."""

import pytest
import transformers

from data.tokenizers import training
from encdec.archs import ARCHS
from train import start
from train.errors import Refusal
from train.setup import tokenizers
from train.setup.task import build_task

from .conftest import write_words


def test_every_architecture_has_a_tokenizer_to_train():
  kinds = {arch.TOKENIZER for arch in ARCHS.values()}
  assert kinds == tokenizers.TRAINERS.keys()


def test_a_roberta_preset_trains_its_tokenizer(pairs_folder, tiny_config):
  tiny_config.model.encoder = tiny_config.model.decoder = "roberta:tiny"
  tiny_config.data.target_vocab_size = 300
  task = build_task(tiny_config, pairs_folder / "run")
  start, end, pad = task.tokens.start, task.tokens.end, task.tokens.pad
  ids = [task.target_tokenizer.token_id(t) for t in ("<s>", "</s>", "<pad>")]
  assert [start, *end, pad] == ids
  assert task.module.config.decoder.position_offset == pad + 1


def test_tokenizers_learn_from_all_of_a_mixture(tiny_config, tmp_path):
  uris = [
    write_words(tmp_path / "one", *["alpha alpha"] * 9),
    write_words(tmp_path / "two", *["omega omega"] * 9),
  ]
  tiny_config.data.train = f"1*{uris[0]},2*{uris[1]}"
  task = build_task(tiny_config, tmp_path / "run")
  for word in ("alpha", "omega"):
    assert task.source_tokenizer.token_id(word) is not None


def test_tokenizers_that_differ_cannot_share(
  tiny_config, tmp_path, one_device, write_tokenizers
):
  config = tiny_config
  config.model.share = "embeddings"
  config.data.target_vocab_size = config.data.source_vocab_size
  config.model.encoder, config.model.decoder = write_tokenizers
  config.model.encoder_init = config.model.decoder_init = "random"
  with pytest.raises(Refusal, match="differ: name one"):
    start.build_run(config, tmp_path / "run")


@pytest.fixture
def write_tokenizers(tmp_path) -> list[str]:
  """Folders of two models of one shape, each with words of its own."""

  names = []
  for name, words in (("one", "red blue"), ("other", "black white")):
    folder = str(tmp_path / name)
    tokenizer = training.train_wordpiece([f"{words} 0123456789"] * 9, 300)
    tokenizer.save(folder)
    transformers.BertConfig(
      vocab_size=tokenizer.vocab_size,
      hidden_size=32,
      num_hidden_layers=1,
      num_attention_heads=2,
      intermediate_size=64,
    ).save_pretrained(folder)
    names.append(folder)
  return names
