"""What a run consists of, from its start and from its folder alone."""

import dataclasses
import json

import jax
import pytest

from data.tokenizers import training
from tests import translators
from train import start
from train.errors import Refusal
from train.setup.task import build_task, record_task, restore_task

from .conftest import TEXTS


@pytest.mark.usefixtures("one_device")
def test_an_id_outside_the_vocabulary_is_refused(folders, tiny_config):
  folder, _, _ = folders
  path = folder / "gpt2/generation_config.json"
  path.write_text(json.dumps({"eos_token_id": 0, "pad_token_id": 50257}))
  tiny_config.model.decoder = str(folder / "gpt2")
  with pytest.raises(
    Refusal, match=r"pad token has the id 50257.*model\.pad_token"
  ):
    build_task(tiny_config, folder / "run")


@pytest.mark.usefixtures("one_device")
def test_a_run_that_began_needs_its_folder_alone(folders, tiny_config):
  folder, _, _ = folders
  config = tiny_config
  config.model.encoder = str(folder / "bert")
  config.model.decoder = str(folder / "gpt2")
  config.model.encoder_init = config.model.decoder_init = "pretrained"
  config.model.start_token = "0"
  this = start.build_run(config, folder / "run")
  record_task(this.task, folder / "run")
  (folder / "bert").rename(folder / "gone")
  again = restore_task(config, folder / "run")
  assert again.tokens == this.task.tokens
  assert again.module == this.task.module
  zero = again.target_tokenizer.token_id("0")
  assert again.tokens.start == zero != 0
  assert "model.*_token" in again.tokens.table()
  written = json.loads((folder / "run/model.json").read_text())
  assert written["tokens"]["start"] == zero
  assert jax.tree.leaves(written["config"])


@pytest.mark.parametrize(
  "raw",
  [
    b"\xff" * 4000,
    b"{}",
    json.dumps(
      {
        "config": {"model_type": "encoder-decoder", "encoder": "secret" * 999},
        "generation": None,
        "tokens": {},
      }
    ).encode(),
  ],
)
def test_a_damaged_model_of_a_run_is_named(tiny_config, tmp_path, raw):
  path = tmp_path / "model.json"
  path.write_bytes(raw)
  for side in ("source", "target"):
    made = training.train_wordpiece(TEXTS, 300)
    made.save(str(tmp_path / "tokenizers" / side))
  with pytest.raises(ValueError, match=str(path)) as caught:
    restore_task(tiny_config, tmp_path)
  assert len(str(caught.value)) < 500 + len(str(path))


def test_of_several_ends_the_tokenizers_own_is_put(tiny_config, tmp_path):
  config = tiny_config
  config.model.decoder = "mbart:tiny"
  config.data.target_tokenizer = translators.save("mbart", tmp_path / "mbart")
  config.data.target_language = "de_DE"
  task = build_task(config, tmp_path / "run")
  several = dataclasses.replace(task.tokens, end=(9, *task.tokens.end))
  task = dataclasses.replace(task, tokens=several)
  assert task.batch_tokens.end == task.target_tokenizer.eos_id
