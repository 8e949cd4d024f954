"""Architectures that are decoders alone: refusals, sizes, inner dropout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from jax.sharding import AbstractMesh

from encdec import sharding
from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.hub import compose_config, encdec_config, load_side_config
from encdec.model import FlaxEncoderDecoderModule, init_params, param_shapes

NAMES = ("bart", "mbart", "pegasus", "marian", "blenderbot", "xglm")
FULL = [
  (name, size)
  for name in NAMES
  for size in ("base", "large")
  if size in ARCHS[name].PRESETS
]


@pytest.mark.parametrize("name", NAMES)
def test_they_are_no_encoders(name):
  with pytest.raises(ValueError, match=f"{name} cannot be the encoder"):
    ARCHS[name].stack_config(ARCHS[name].PRESETS["tiny"], "encoder")


@pytest.mark.parametrize(
  ("name", "change", "message"),
  [
    ("bart", {"decoder_layerdrop": 0.1}, r"decoder_layerdrop=0\.1 is not"),
    ("xglm", {"layerdrop": 0.1}, r"^layerdrop=0\.1 is not supported"),
    ("mbart", {"d_model": 90}, "d_model=90 is no multiple of decoder_att"),
    ("xglm", {"d_model": 90}, "d_model=90 is no multiple of attention_heads"),
    ("marian", {"decoder_vocab_size": 7}, "decoder_vocab_size=7 is not vocab"),
    ("pegasus", {"activation_dropout": 1.5}, "activation_dropout=1.5 must lie"),
    ("blenderbot", {"decoder_layers": 0}, "num_layers=0 must be a whole"),
  ],
)
def test_unsupported_values_are_refused_by_name(name, change, message):
  hub = {**ARCHS[name].PRESETS["tiny"], **change}
  with pytest.raises(ValueError, match=message):
    ARCHS[name].stack_config(hub, "decoder")


@pytest.mark.sample(4)
@pytest.mark.parametrize("name, size", FULL)
def test_full_size_counts_are_pytorchs_and_every_leaf_has_its_place(name, size):
  hub = load_side_config(f"{name}:{size}")
  pair = compose_config(load_side_config("bert:tiny"), hub)
  shapes = param_shapes(FlaxEncoderDecoderModule(encdec_config(pair)))
  with torch.device("meta"):
    decoder = transformers.AutoModelForCausalLM.from_config(
      transformers.CONFIG_MAPPING[name].from_dict(pair.decoder.to_dict())
    )
  decoder.tie_weights()
  # Tables that PyTorch computes are frozen parameters there.
  wanted = sum(p.numel() for p in decoder.parameters() if p.requires_grad)
  found = sum(
    int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes["decoder"])
  )
  assert found == wanted
  mesh = AbstractMesh((1, 1, 2, 2), sharding.MESH_AXES)
  padded = encdec_config(pair, vocab_multiple=128)
  shapes = param_shapes(FlaxEncoderDecoderModule(padded))
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["decoder"]):
    where = f"decoder/{sharding.leaf_path(path)}"
    axes = sharding.logical_axes(where)
    sharding.resolve(where, leaf.shape, axes, sharding.DEFAULT_RULES, mesh)


def test_dropout_within_the_feed_forward_layer():
  """The declared rate is applied, in training alone."""
  stacks = {
    role: dataclasses.replace(
      ARCHS[name].stack_config(ARCHS[name].PRESETS["tiny"], role),
      num_layers=1,
      stored_layers=1,
      embedding_dropout=0.0,
      residual_dropout=0.0,
      attention_dropout=0.0,
      activation_dropout=0.5 if role == "decoder" else 0.0,
    )
    for role, name in (("encoder", "bert"), ("decoder", "bart"))
  }
  module = FlaxEncoderDecoderModule(EncDecConfig(**stacks))
  params = jax.jit(lambda: init_params(module, jax.random.key(0)))()
  ids = jnp.arange(5, 11, dtype=jnp.int32)[None]
  row = (ids, jnp.ones_like(ids), ids - 5)
  states = jnp.ones((1, 3, stacks["encoder"].width))
  source = (states, jnp.ones((1, 3), jnp.int32))

  @jax.jit
  def decode(key):
    return module.apply(
      {"params": params},
      *row,
      *source,
      dropout_key=key,
      method="decode_states",
    ).states

  without = decode(None)
  one, two = decode(jax.random.key(1)), decode(jax.random.key(2))
  assert np.abs(one - without).max() > 0.01
  assert np.abs(one - two).max() > 0.01
  # It scales what it keeps: the mean stays.
  keys = jax.random.split(jax.random.key(3), 400)
  mean = jnp.mean(jax.lax.map(decode, keys), axis=0)
  assert np.abs(mean - without).max() < np.abs(one - without).max() / 2
