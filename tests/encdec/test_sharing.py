"""Sharing: what is stored once is applied twice, and learns from both."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.archs import ARCHS
from encdec.config import EncDecConfig, Share
from encdec.model import FlaxEncoderDecoderModule, init_params, param_shapes
from encdec.sharing import collapse, expand, share_of, stored_path

SHARED = (Share.EMBEDDINGS, Share.ALL)


def _config(share, arch="bert", preset="tiny", **hub) -> EncDecConfig:
  hub = {**ARCHS[arch].PRESETS[preset], **hub}
  return EncDecConfig(
    *(ARCHS[arch].stack_config(hub, role) for role in ("encoder", "decoder")),
    share=share,
  )


def _paths(tree) -> dict[str, object]:
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in flat
  }


@pytest.mark.parametrize(
  ("vocab_size", "counts"),
  [
    (30522, (247_363_386, 223_922_490, 138_471_738)),
    (28996, (245_017_924, 222_748_996, 137_298_244)),
  ],
)
def test_bert_base_has_as_many_parameters(vocab_size, counts):
  """Heads and one pooler counted; uncased and cased."""
  found = [
    sum(
      math.prod(leaf.shape)
      for leaf in jax.tree.leaves(
        param_shapes(
          FlaxEncoderDecoderModule(
            _config(share, preset="base", vocab_size=vocab_size)
          )
        )
      )
    )
    for share in Share
  ]
  assert found == list(counts)


@pytest.mark.parametrize("share", SHARED)
@pytest.mark.parametrize("arch", ["bert", "roberta", "bert-generation"])
def test_the_applied_tree_is_that_of_a_model_that_shares_nothing(arch, share):
  config = _config(share, arch)
  stored = param_shapes(FlaxEncoderDecoderModule(config))
  assert share_of(stored) == share
  applied = expand(stored, config)
  free = dataclasses.replace(config, share=Share.NONE)
  whole = param_shapes(FlaxEncoderDecoderModule(free))
  assert _paths(applied) == _paths(whole)
  assert _paths(collapse(applied, config)) == _paths(stored)
  by_name = _paths(jax.tree.map(lambda leaf: object(), stored))
  for path, leaf in _paths(expand(_nested(by_name), config)).items():
    assert leaf is by_name[stored_path(path, share)]


def _nested(flat):
  tree = {}
  for path, leaf in flat.items():
    *parents, name = path.split("/")
    branch = tree
    for parent in parents:
      branch = branch.setdefault(parent, {})
    branch[name] = leaf
  return tree


@pytest.mark.parametrize("share", SHARED)
def test_gradients_are_the_sums_of_those_apart(share):
  config = _config(share, vocab_size=50, hidden_size=16, intermediate_size=24)
  module = FlaxEncoderDecoderModule(config)
  stored = init_params(module, jax.random.key(0))
  rng = np.random.default_rng(0)
  tokens = jnp.asarray(rng.integers(1, 50, (2, 5)), jnp.int32)
  side = (tokens, jnp.ones_like(tokens), jnp.arange(5)[None] * (tokens > 0))

  def loss(applied):
    logits = module.apply({"params": applied}, *side, *side).logits
    return jnp.sum(jax.nn.log_softmax(logits)[..., 3])

  apart = _paths(jax.grad(loss)(expand(stored, config)))
  own = _paths(jax.grad(lambda tree: loss(expand(tree, config)))(stored))
  summed = {}
  for path, leaf in apart.items():
    at = stored_path(path, share)
    summed[at] = summed.get(at, 0.0) + leaf
  assert own.keys() == summed.keys()
  both = [path for path in apart if stored_path(path, share) != path]
  assert both and all(np.abs(apart[path]).max() > 0 for path in both)
  for path, leaf in own.items():
    np.testing.assert_allclose(leaf, summed[path], atol=1e-4, err_msg=path)


def test_sides_that_differ_cannot_share():
  config = _config(Share.NONE)
  other = ARCHS["bert"].stack_config(
    {**ARCHS["bert"].PRESETS["tiny"], "vocab_size": 77}, "decoder"
  )
  for share in SHARED:
    with pytest.raises(ValueError, match=r"vocab_size \(1000, 77\)"):
      EncDecConfig(config.encoder, other, share=share)
  roberta = ARCHS["roberta"].stack_config(
    {**ARCHS["roberta"].PRESETS["tiny"]}, "decoder"
  )
  with pytest.raises(ValueError, match=r"name \(bert, roberta\)"):
    EncDecConfig(config.encoder, roberta, share=Share.ALL)
  EncDecConfig(config.encoder, roberta, share=Share.EMBEDDINGS)
  # Of one shape and yet of two architectures.
  camembert = ARCHS["camembert"]
  encoder = camembert.stack_config(camembert.PRESETS["tiny"], "encoder")
  with pytest.raises(ValueError, match=r"name \(camembert, roberta\)"):
    EncDecConfig(encoder, roberta, share=Share.ALL)
