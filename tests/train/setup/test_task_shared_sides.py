"""A run whose sides share: trained, exported, refused where it cannot be."""

import numpy as np
import pytest

from configs import dates
from train import loop, validate
from train.errors import Refusal
from train.modes import export
from train.setup import trained


def _shared(config, share):
  config.model.decoder = "bert:tiny"
  config.model.share = share
  config.data.target_vocab_size = config.data.source_vocab_size
  config.eval.text_examples = 8
  return config


def test_pytorch_generates_what_a_shared_run_does(
  tiny_config, tmp_path, one_device, assert_pytorch_generates
):
  config = _shared(tiny_config, "all")
  loop.run(config, str(tmp_path / "run"))
  this = trained.load(config, str(tmp_path / "run"))
  assert set(this.params["decoder"]["layers"]) == {
    "cross_attention",
    "cross_attention_norm",
  }
  export.run(config, str(tmp_path / "run"), output=str(tmp_path / "hub"))
  # One tokenizer, where AutoTokenizer looks.
  assert not (tmp_path / "hub/target_tokenizer").exists()
  model = assert_pytorch_generates(
    tmp_path / "hub", tmp_path / f"run/samples/valid-{this.step:08d}.jsonl"
  )
  tables = [
    side.get_input_embeddings().weight.detach().numpy()
    for side in (model.encoder, model.decoder)
  ]
  np.testing.assert_array_equal(*tables)


@pytest.mark.parametrize(
  ("share", "key", "value", "other"),
  [
    ("all", "model.decoder", "gpt2:tiny", "model.encoder"),
    ("all", "model.encoder", "my/bert", "model.decoder"),
    ("embeddings", "data.target_vocab_size", 999, "data.source_vocab_size"),
    ("embeddings", "data.target_tokenizer", "x", "data.source_tokenizer"),
  ],
)
def test_sides_that_start_apart_cannot_share(share, key, value, other):
  config = _shared(dates.get_config("smoke"), share)
  config.update_from_flattened_dict({key: value})
  with pytest.raises(Refusal) as caught:
    validate.check_values(config)
  for part in (f"model.share = {share!r}", f"{key} = {value!r}", other):
    assert part in str(caught.value)
