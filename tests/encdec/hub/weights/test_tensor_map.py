"""Every leaf of the tree is filled once, from tensors and back."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from encdec.config import Share
from encdec.hub import compose_config, encdec_config, load_side_config
from encdec.hub.weights.tensor_map import (
  fits,
  hub_shape,
  in_composite,
  tensor_mappings,
)
from encdec.model import FlaxEncoderDecoderModule, param_shapes


def _config(decoder, **options):
  sides = (load_side_config(f"{arch}:tiny") for arch in ("bert", decoder))
  return encdec_config(compose_config(*sides), **options)


@pytest.mark.parametrize(
  ("decoder", "share"),
  [
    ("bert", Share.NONE),
    ("bert", Share.ALL),
    ("gpt2", Share.NONE),
    ("bart", Share.NONE),
  ],
)
def test_every_element_is_filled_once_and_written_back(decoder, share):
  config = _config(decoder, share=share, vocab_multiple=128)
  shapes = param_shapes(FlaxEncoderDecoderModule(config))
  rng = np.random.default_rng(0)
  filled = {
    path: np.zeros(leaf.shape, np.float32)
    for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items()
  }
  counts = jax.tree.map(np.zeros_like, filled)
  for mapping in tensor_mappings(config):
    if mapping.second or mapping.weight.parts > 1:
      continue
    leaf = filled[mapping.path]
    array = rng.normal(size=hub_shape(mapping, leaf.shape)).astype(np.float32)
    assert fits(array, mapping, leaf.shape)
    assert not fits(array[..., :-1], mapping, leaf.shape)
    mapping.fill(leaf, array)
    np.testing.assert_array_equal(mapping.to_hub(leaf), array)
    mapping.cut(counts[mapping.path])[...] += 1
  split = {m.path for m in tensor_mappings(config) if m.weight.parts > 1}
  for path, count in counts.items():
    rows = config.decoder.vocab_size
    axis = {"embedding": 0, "kernel": 1, "bias": 0}.get(path.split("/")[-1])
    if "tokens/" in path or "decoder/head/bias" in path:
      count = np.split(count, [rows], axis=axis)[0]
    assert path in split or (count == 1).all(), path


def test_names_of_one_side_are_found_with_and_without_its_prefix():
  stack = _config("bert").decoder
  bare = in_composite(
    ["encoder.layer.0.output.LayerNorm.gamma"], "decoder", stack
  )
  name = "decoder.bert.encoder.layer.0.output.LayerNorm.weight"
  assert bare == {name: "encoder.layer.0.output.LayerNorm.gamma"}
  headed = in_composite(["bert.a", "cls.predictions.bias"], "decoder", stack)
  assert set(headed) == {"decoder.bert.a", "decoder.cls.predictions.bias"}
