"""Attention against a plain loop in numpy, option by option."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.layers import attention as attention_lib
from encdec.layers.kernels.facts import AttentionDropout
from encdec.types import AttentionMask

attention = functools.partial(attention_lib.attention, platform="cpu")
B, T, S, H, G, K = 2, 4, 5, 4, 2, 8


def _arrays(seed=0):
  rng = np.random.default_rng(seed)
  shapes = ((B, T, H, K), (B, S, G, K), (B, S, G, K))
  return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def _reference(q, k, v, allowed, scale, bias=None, softcap=None, sinks=None):
  q, k, v = (np.asarray(a) for a in (q, k, v))
  out = np.zeros_like(q)
  for b, t, h in np.ndindex(B, T, H):
    logits = scale * k[b, :, h // (H // G)] @ q[b, t, h]
    if softcap is not None:
      logits = softcap * np.tanh(logits / softcap)
    if bias is not None:
      logits = logits + bias[b, h, t]
    logits = np.where(allowed[b, t], logits, -np.inf)
    extra = [] if sinks is None else [sinks[h]]
    joined = np.concatenate([logits, extra])
    weights = np.exp(joined - joined.max())
    weights = (weights / weights.sum())[:S]
    out[b, t, h] = weights @ v[b, :, h // (H // G)]
  return out


SEGMENTS = AttentionMask(
  query_segments=jnp.array([[1, 1, 2, 2], [1, 1, 1, 0]]),
  key_segments=jnp.array([[1, 1, 1, 2, 2], [1, 1, 0, 0, 0]]),
)


def _allowed(mask):
  index_q, index_k = np.arange(T)[:, None], np.arange(S)[None]
  allowed = np.ones((B, T, S), bool)
  if mask.query_segments is not None:
    allowed &= (
      np.asarray(mask.query_segments)[:, :, None]
      == np.asarray(mask.key_segments)[:, None]
    )
  if mask.causal:
    allowed &= index_q >= index_k
  back, ahead = mask.window
  if back is not None:
    allowed &= index_q - index_k <= back
  if ahead is not None:
    allowed &= index_k - index_q <= ahead
  return allowed


@pytest.mark.parametrize(
  "mask",
  [
    AttentionMask(),
    SEGMENTS,
    AttentionMask(causal=True),
    AttentionMask(window=(1, 2)),
    SEGMENTS.replace(causal=True, window=(2, None)),
  ],
  ids=["all", "segments", "causal", "window", "together"],
)
def test_masks(mask):
  q, k, v = _arrays()
  allowed = _allowed(mask)
  seen = allowed.any(-1)
  out, weights = attention(q, k, v, mask, scale=0.3, return_weights=True)
  np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
  assert np.isfinite(out).all()
  expected = _reference(q, k, v, allowed | ~seen[..., None], 0.3)
  np.testing.assert_allclose(out[seen], expected[seen], atol=1e-5)
  # As with Hugging Face's eager attention, who sees nobody sees all evenly.
  np.testing.assert_allclose(
    weights.transpose(0, 2, 1, 3)[~seen], 1 / S, atol=1e-6
  )


@pytest.mark.parametrize("option", ["bias", "softcap", "sinks"])
def test_options(option):
  q, k, v = _arrays()
  rng = np.random.default_rng(1)
  value = {
    "bias": jnp.asarray(rng.normal(size=(B, H, T, S)), jnp.float32),
    "softcap": 0.7,
    "sinks": jnp.asarray(rng.normal(size=(H,)), jnp.float32),
  }[option]
  allowed = np.ones((B, T, S), bool)
  expected = _reference(q, k, v, allowed, 1.0, **{option: value})
  out, _ = attention(q, k, v, AttentionMask(), scale=1.0, **{option: value})
  np.testing.assert_allclose(out, expected, atol=1e-5)
  plain, _ = attention(q, k, v, AttentionMask(), scale=1.0)
  assert np.abs(plain - out).max() > 1e-2


def test_positions_replace_the_index():
  q, k, v = _arrays()
  mask = AttentionMask(
    query_positions=jnp.array([[4, 5, 6, 7]] * B), causal=True
  )
  out, _ = attention(q, k, v, mask, scale=1.0)
  free, _ = attention(q, k, v, AttentionMask(), scale=1.0)
  np.testing.assert_allclose(out, free, atol=1e-6)


def test_softmax_is_float32_in_bfloat16():
  q, k, v = (jnp.asarray(a, jnp.bfloat16) for a in _arrays())
  out, weights = attention(
    q, k, v, AttentionMask(), scale=1.0, return_weights=True
  )
  assert out.dtype == jnp.bfloat16 and weights.dtype == jnp.float32
  np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)


def test_dropped_values_equal_dropped_keys_of_all_queries():
  """T5's form: the weights masked alike for every query."""
  q, k, v = _arrays()
  dropout = AttentionDropout("values", 0.5, jax.random.key(0), None)
  out, weights = attention(
    q, k, v, AttentionMask(), scale=1.0, dropout=dropout, return_weights=True
  )
  identity = np.zeros((B, S, G, S), np.float32)
  identity[:, np.arange(S), :, np.arange(S)] = 1.0
  zeros = jnp.zeros((B, S, G, S))
  kept, _ = attention(
    jnp.zeros((B, T, H, S)), zeros, jnp.asarray(identity), AttentionMask(),
    scale=1.0, dropout=dropout,
  )  # fmt: skip
  # Even weights over an identity show the mask, scaled by 1 / (S keep).
  mask = np.asarray(kept)[:, 0] * S
  assert set(np.unique(mask)) == {0.0, 2.0}
  groups = np.repeat(v, H // G, axis=2)
  expected = np.einsum("bhts,bhs,bshk->bthk", weights, mask, groups)
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_dropped_weights_differ_between_queries():
  q, k, v = _arrays()
  dropout = AttentionDropout("weights", 0.5, jax.random.key(0), None)
  same = jnp.broadcast_to(q[:, :1], q.shape)
  out, _ = attention(same, k, v, AttentionMask(), scale=1.0, dropout=dropout)
  assert np.abs(out[:, 0] - out[:, 1]).max() > 1e-3
  values = AttentionDropout("values", 0.5, jax.random.key(0), None)
  out, _ = attention(same, k, v, AttentionMask(), scale=1.0, dropout=values)
  np.testing.assert_allclose(out[:, 0], out[:, 1], atol=1e-6)
