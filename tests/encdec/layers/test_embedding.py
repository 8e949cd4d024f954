"""Embeddings against sums of numpy; each kind of positions has its table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config import PositionKind
from encdec.layers.compute_config import ComputeConfig
from encdec.layers.embedding import Embeddings

TOKENS = np.array([[5, 0, 12, 5]], np.int32)
POSITIONS = np.array([[0, 1, 2, 0]], np.int32)


def _layer(config, rows=13, dtype=jnp.float32):
  return Embeddings(config, rows, ComputeConfig(dtype, jnp.float32, "cpu"))


def test_every_kind_is_embedded_in_its_own_way(side_config, filled):
  tokens = jnp.arange(4, dtype=jnp.int32)[None]
  found = []
  for kind in PositionKind:
    layer = _layer(side_config(position_kind=kind))
    params = filled(layer, tokens, tokens)
    assert ("positions" in params["params"]) == (kind == PositionKind.LEARNED)
    apply = jax.jit(layer.apply)
    found.append(np.asarray(apply(params, tokens, tokens)))
  for index, one in enumerate(found):
    for other in found[:index]:
      assert np.abs(one - other).max() > 1e-2


@pytest.mark.parametrize("given", [False, True], ids=["ids", "vectors"])
def test_what_is_embedded_is_added_up(side_config, filled, given):
  config = side_config(
    embedding_norm=False,
    embedding_scale=3.0,
    given_embedding_scale=2.0,
    position_offset=2,
  )
  layer, types = _layer(config), np.array([[0, 1, 1, 0]], np.int32)
  params = filled(layer, TOKENS, POSITIONS)
  table = {
    name: params["params"][name]["embedding"]
    for name in ("tokens", "positions", "types")
  }
  rows = table["tokens"][TOKENS]
  expected = rows * (2.0 if given else 3.0)
  expected = expected + table["positions"][POSITIONS + 2]
  tokens, embeds = (None, rows) if given else (TOKENS, None)

  def embed(**options):
    apply = jax.jit(layer.apply)
    return apply(params, tokens, POSITIONS, embeds=embeds, **options)

  first = expected + table["types"][0]
  np.testing.assert_allclose(embed(), first, rtol=1e-5, atol=1e-5)
  expected = expected + table["types"][types]
  found = embed(types=types)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_norm_and_projection_come_after_the_sum(side_config, filled):
  config = side_config(embedding_width=6, embedding_projection=True)
  layer = _layer(config)
  params = filled(layer, TOKENS, POSITIONS)
  p = params["params"]
  sums = p["tokens"]["embedding"][TOKENS] + p["types"]["embedding"][0]
  sums = sums + p["positions"]["embedding"][POSITIONS]
  sums = sums - sums.mean(-1, keepdims=True)
  normed = sums / np.sqrt((sums**2).mean(-1, keepdims=True))
  normed = normed * p["norm"]["scale"] + p["norm"]["bias"]
  expected = normed @ p["projection"]["kernel"] + p["projection"]["bias"]
  found = jax.jit(layer.apply)(params, TOKENS, POSITIONS)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_tokens_or_vectors_and_types_where_there_are_any(side_config, filled):
  layer = _layer(side_config(type_vocab_size=0))
  params = filled(layer, TOKENS, POSITIONS)
  with pytest.raises(ValueError, match="either tokens or embeds"):
    jax.jit(layer.apply)(params, None, POSITIONS)
  with pytest.raises(ValueError, match="bert has no token types"):
    jax.jit(layer.apply)(params, TOKENS, POSITIONS, types=POSITIONS)
