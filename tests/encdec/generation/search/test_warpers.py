"""Each warp keeps the tokens that its definition names, and their scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.generation.search.options import Warps
from encdec.generation.search.warpers import warp

VOCAB = 9
SCORES = (2.0 * np.random.default_rng(0).normal(size=(2, 3, VOCAB))).astype(
  np.float32
)


def _smallest_set(p, order, mass):
  """The first tokens in an order, as many as it takes to reach a mass."""
  count = int(np.searchsorted(np.cumsum(p[order]), mass)) + 1
  return set(order[:count].tolist())


def _kept(name, value, p, keep):
  """By definition, of one distribution; the first `keep` in any case."""
  order = np.argsort(-p)
  information = -np.log(p)
  entropy = float((p * information).sum())
  if name == "typical_p":
    order = np.argsort(np.abs(information - entropy))
  if name == "top_k":
    kept = set(order[:value].tolist())
  elif name in ("top_p", "typical_p"):
    kept = _smallest_set(p, order, value)
  else:
    least = {
      "min_p": value * p.max(),
      "epsilon_cutoff": value,
      "eta_cutoff": min(value, np.sqrt(value) * np.exp(-entropy)),
    }[name]
    kept = set(np.flatnonzero(p >= least).tolist())
  return kept | set(order[:keep].tolist())


@pytest.mark.parametrize(
  ("name", "values"),
  [
    ("top_k", (1, 3, 20)),
    ("top_p", (0.2, 0.7, 0.95)),
    ("typical_p", (0.2, 0.7, 0.95)),
    ("min_p", (0.05, 0.3, 0.9)),
    ("epsilon_cutoff", (0.01, 0.1, 0.9)),
    ("eta_cutoff", (0.01, 0.1, 0.9)),
  ],
)
def test_what_is_kept(name, values):
  exact = np.exp(SCORES.astype(np.float64))
  exact /= exact.sum(-1, keepdims=True)
  run = jax.jit(warp, static_argnames="keep")
  counts = set()
  for value in values:
    given = value if name == "top_k" else jnp.float32(value)
    for keep in (1, 4):
      found = np.asarray(run(SCORES, Warps(**{name: given}), keep=keep))
      for at in np.ndindex(SCORES.shape[:2]):
        real = np.isfinite(found[at])
        kept = _kept(name, value, exact[at], keep)
        assert set(np.flatnonzero(real).tolist()) == kept, (value, keep)
        np.testing.assert_array_equal(found[at][real], SCORES[at][real])
        counts.add(int(real.sum()))
  assert len(counts) > 2, "the cases differ"


def test_temperature_comes_first():
  run = jax.jit(warp, static_argnames="keep")
  p = jnp.float32(0.6)
  found = run(SCORES, Warps(temperature=jnp.float32(4.0), top_p=p), keep=1)
  flat = run(SCORES / 4, Warps(top_p=p), keep=1)
  np.testing.assert_array_equal(found, flat)
  sharp = run(SCORES, Warps(top_p=p), keep=1)
  assert np.isfinite(found).sum() > np.isfinite(sharp).sum()


@pytest.mark.parametrize(
  "warps",
  [Warps(top_k=1), Warps(epsilon_cutoff=jnp.float32(0.99))],
  ids=["top_k", "epsilon_cutoff"],
)
def test_the_best_stays_where_the_bound_is_rounded_otherwise(
  warps, monkeypatch
):
  """As where XLA computes scores once to rank them, once to compare them."""
  top_k = jax.lax.top_k

  def rounded_up(scores, k):
    best, at = top_k(scores, k)
    return best + 1e-6, at

  monkeypatch.setattr(jax.lax, "top_k", rounded_up)
  kept = np.isfinite(warp(jnp.asarray(SCORES), warps, keep=1))
  np.testing.assert_array_equal(kept.sum(axis=-1), 1)
  np.testing.assert_array_equal(kept.argmax(axis=-1), SCORES.argmax(axis=-1))
