"""What a saved folder holds, and its way to the Hub."""

import errno
import json
import os

import huggingface_hub
import jax
import numpy as np
import pytest
import transformers
from huggingface_hub import errors

from encdec import FlaxEncoderDecoderModel
from encdec.hub import Card, HubError, save_folder
from encdec.hub.files.repo import HTTPError
from encdec.special_tokens import SpecialTokens

TOKENS = SpecialTokens(start=5, end=(6, 7), pad=8, where={"start": "a run"})


class _Tokenizer:
  def __init__(self, name):
    self.name = name

  def save(self, folder):
    import pathlib

    pathlib.Path(folder).mkdir(exist_ok=True)
    (pathlib.Path(folder) / "tokenizer.json").write_text(self.name)


def test_a_folder_holds_all_that_was_resolved(tiny, tmp_path):
  save_folder(
    tmp_path,
    tiny.params,
    tiny.config,
    tokens=TOKENS,
    generation={"max_length": 30, "num_beams": 4},
    source_tokenizer=_Tokenizer("source"),
    target_tokenizer=_Tokenizer("target"),
    card=Card(
      title="A pair",
      base_models=['bert"base'],
      datasets=["pydoc@train"],
      metrics={"eval/test/rougeL": 17.25},
      notes="One note.",
    ),
  )
  config = json.loads((tmp_path / "config.json").read_text())
  assert config["architectures"] == ["EncoderDecoderModel"]
  assert config["tie_encoder_decoder"] is False
  assert config["decoder_start_token_id"] == 5 and config["pad_token_id"] == 8
  generation = transformers.GenerationConfig.from_pretrained(tmp_path)
  assert generation.eos_token_id == [6, 7] and generation.max_length == 30
  assert (tmp_path / "tokenizer.json").read_text() == "source"
  target = tmp_path / "target_tokenizer" / "tokenizer.json"
  assert target.read_text() == "target"
  card = (tmp_path / "README.md").read_text()
  for text in ('- "bert\\"base"', "# A pair", "| eval/test/rougeL | 17.25 |",
               "`pydoc@train`", "from a run", "One note."):  # fmt: skip
    assert text in card
  assert not list(tmp_path.glob("*.partial*"))
  model = FlaxEncoderDecoderModel.from_pretrained(tmp_path)
  assert model.special_tokens.end == (6, 7)
  # A later save's card and tokenizers replace these.
  save_folder(
    tmp_path, tiny.params, tiny.config, source_tokenizer=_Tokenizer("again")
  )
  assert "One note." not in (tmp_path / "README.md").read_text()
  assert not (tmp_path / "target_tokenizer").exists()
  # A card that a person may have edited is kept.
  (tmp_path / "README.md").write_text("mine")
  model.save_pretrained(tmp_path)
  assert (tmp_path / "README.md").read_text() == "mine"
  again = transformers.GenerationConfig.from_pretrained(tmp_path)
  assert again.num_beams == 4 and again.eos_token_id == [6, 7]


def test_params_that_do_not_fit_are_refused(tiny, tmp_path):
  params = dict(tiny.params)
  params["encoder"] = {**params["encoder"], "pooler": {}}
  with pytest.raises(ValueError, match="lack encoder/pooler/kernel"):
    save_folder(tmp_path, params, tiny.config)
  table = tiny.params["encoder"]["embeddings"]["positions"]["embedding"]
  embeddings = tiny.params["encoder"]["embeddings"]
  params["encoder"] = {
    **tiny.params["encoder"],
    "embeddings": {**embeddings, "positions": {"embedding": table[:-1]}},
  }
  with pytest.raises(ValueError, match=r"positions/embedding of shape \[39,"):
    save_folder(tmp_path, params, tiny.config)
  (tmp_path / "file").write_text("")
  with pytest.raises(ValueError, match="is a file; name a folder"):
    tiny.save_pretrained(tmp_path / "file")
  with pytest.raises(ValueError, match="part='head' must be"):
    tiny.save_pretrained(tmp_path, part="head")
  with pytest.raises(ValueError, match="leave it out with part='encoder'"):
    tiny.save_pretrained(tmp_path, part="encoder", card=Card())


def test_a_refusal_leaves_the_folder_as_it_was(tiny, tmp_path):
  tiny.save_pretrained(tmp_path)
  before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  tiny.config.decoder_start_token_id = 9
  params = {**tiny.params, "encoder": {}}
  for options in ({"params": params}, {"max_shard_size": "1.5GB"}):
    for part in (None, "encoder"):
      with pytest.raises(ValueError, match=r"lack|is no size"):
        tiny.save_pretrained(tmp_path, part=part, **options)
  assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_side_alone_says_its_dtype(tiny, tmp_path):
  tiny.config.encoder.dtype = "bfloat16"
  tiny.save_pretrained(tmp_path, part="encoder")
  config = json.loads((tmp_path / "config.json").read_text())
  assert config["dtype"] == "float32"


def test_params_of_the_caller_are_the_ones_saved(tiny, tmp_path):
  other = tiny.to_bf16(tiny.params)
  tiny.save_pretrained(tmp_path, other)
  assert json.loads((tmp_path / "config.json").read_text())["dtype"] == (
    "bfloat16"
  )
  model = FlaxEncoderDecoderModel.from_pretrained(tmp_path)
  bias = model.params["encoder"]["embeddings"]["tokens"]["embedding"]
  assert bias.dtype == np.float32
  wanted = other["encoder"]["embeddings"]["tokens"]["embedding"]
  np.testing.assert_array_equal(bias, wanted.astype(np.float32))


@pytest.fixture
def uploads(monkeypatch):
  """Records what would be sent to the Hub."""
  calls = []

  def create_repo(repo_id, **kwargs):
    calls.append(("create", repo_id, kwargs))

  def upload_folder(*, repo_id, folder_path, **kwargs):
    import pathlib

    held = {path.name for path in pathlib.Path(folder_path).iterdir()}
    calls.append(("upload", repo_id, held))
    return f"https://hub/{repo_id}"

  monkeypatch.setattr(huggingface_hub, "create_repo", create_repo)
  monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
  return calls


def test_push_to_hub_uploads_a_whole_folder(tiny, uploads, tmp_path):
  url = tiny.push_to_hub("somebody/pair", private=True, token="t")
  assert url == "https://hub/somebody/pair"
  assert uploads[0][:2] == ("create", "somebody/pair")
  assert uploads[0][2]["private"] is True and uploads[0][2]["token"] == "t"
  assert uploads[1][2] >= {
    "config.json", "generation_config.json", "model.safetensors", "README.md"
  }  # fmt: skip
  tiny.save_pretrained(tmp_path / "mine", push_to_hub=True)
  assert uploads[-1][1] == "mine"


@pytest.mark.parametrize(
  "error", [errors.HFValidationError("no such name"), HTTPError("")]
)
def test_a_refusal_of_the_hub_is_explained(tiny, monkeypatch, error):
  def create_repo(repo_id, **kwargs):
    raise error

  monkeypatch.setattr(huggingface_hub, "create_repo", create_repo)
  with pytest.raises(HubError, match="'a/b/c' cannot be written on the Hub"):
    tiny.push_to_hub("a/b/c")


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("size", ["10GB", "1KB"], ids=["whole", "shards"])
def test_an_error_of_the_disk_is_told_and_nothing_replaced(
  tiny, tmp_path, monkeypatch, failing, size
):
  """Also one that meets what is written while more is: it comes once.

  A shard of one tensor is sent to the disk once before all of it is.
  """

  def held():
    return {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")}

  tiny.save_pretrained(tmp_path, max_shard_size=size)
  before = held()
  tiny.params = jax.tree.map(lambda leaf: leaf + 1, tiny.params)
  calls, fsync = [], os.fsync

  def fail_once(descriptor):
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    if ".safetensors" in path:
      calls.append(path)
    if ".safetensors" in path and len(calls) == failing:
      raise OSError(errno.EIO, "the disk is broken")
    fsync(descriptor)

  monkeypatch.setattr(os, "fsync", fail_once)
  with pytest.raises(OSError, match="the disk is broken"):
    tiny.save_pretrained(tmp_path, max_shard_size=size)
  assert held() == before
  assert not list(tmp_path.glob("*.partial*"))
  tiny.save_pretrained(tmp_path, max_shard_size=size)
  assert held() != before
