"""Samples follow the distribution that PyTorch's warpers leave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch
from transformers.generation import logits_process as theirs

from encdec.generation.search import hypotheses, loop, sampling
from encdec.generation.search.context import SearchContext
from encdec.generation.search.options import SearchOptions, Warps
from encdec.generation.search.warpers import warp
from encdec.types import SelfCache

VALUE = {
  "temperature": 0.7,
  "top_k": 5,
  "top_p": 0.8,
  "min_p": 0.15,
  "typical_p": 0.6,
  "epsilon_cutoff": 0.05,
  "eta_cutoff": 0.2,
}
CLASSES = {
  "temperature": theirs.TemperatureLogitsWarper,
  "top_k": theirs.TopKLogitsWarper,
  "top_p": theirs.TopPLogitsWarper,
  "min_p": theirs.MinPLogitsWarper,
  "typical_p": theirs.TypicalLogitsWarper,
  "epsilon_cutoff": theirs.EpsilonLogitsWarper,
  "eta_cutoff": theirs.EtaLogitsWarper,
}
SETS = [
  (),
  *[(name,) for name in VALUE],
  ("temperature", "top_k", "top_p"),
  ("temperature", "min_p", "eta_cutoff"),
  ("top_p", "typical_p", "epsilon_cutoff"),
  tuple(VALUE),
]


def _ours(names) -> Warps:
  return Warps(
    **{
      name: VALUE[name] if name == "top_k" else jnp.float32(VALUE[name])
      for name in names
    }
  )


def _theirs(names, scores: np.ndarray, keep: int) -> np.ndarray:
  scores = torch.tensor(scores)
  for name in (name for name in VALUE if name in names):
    options = {} if name == "temperature" else {"min_tokens_to_keep": keep}
    scores = CLASSES[name](VALUE[name], **options)(None, scores)
  return scores.numpy()


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_warps(names, keep, seed):
  scores = 2.5 * np.random.default_rng(seed).standard_normal((40, 23))
  scores = scores.astype(np.float32)
  scores[::4, 3:9] = -np.inf
  ours = warp(jnp.asarray(scores)[:, None], _ours(names), keep)[:, 0]
  np.testing.assert_allclose(ours, _theirs(names, scores, keep), rtol=1e-6)


def _draw(logits: np.ndarray, draws: int, warps: Warps, **options):
  """First tokens of `draws` sources whose every step has these logits."""
  search = SearchContext(
    SearchOptions(
      jnp.int32(2), jnp.int32(0), warps=warps, sample=True, **options
    ),
    "cpu",
    vocab_size=logits.size,
  )
  ones = jnp.ones((draws, 1), jnp.int32)
  texts = hypotheses.start(
    ones, ones > 0, width=1, slots=2, pad_token=jnp.int32(0), reorder=False
  )
  keys, rows = jax.random.split(jax.random.key(5), draws), jnp.int32(draws)

  def step(tokens, view, cache):
    shape = (draws, 1, logits.size)
    return jnp.broadcast_to(jnp.asarray(logits), shape), cache

  cache = SelfCache(((jnp.zeros((draws, 1, 2, 1)),) * 2,))
  loop_state = loop.LoopState(
    sampling.start(texts, keys, sum_scores=False), cache, jnp.int32(0)
  )
  state = jax.jit(lambda p: loop.run(step, p, search, rows).state)(loop_state)
  return np.asarray(state.texts.tokens[:, 0, 1])


@pytest.mark.sample(3)
@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_draws(names):
  logits = np.linspace(-1.5, 2.0, 12, dtype=np.float32)[
    [*range(0, 12, 2), *range(1, 12, 2)]
  ]
  expected = _theirs(names, logits[None], 1)[0].astype(np.float64)
  expected = np.exp(expected) / np.exp(expected).sum()
  counts = np.bincount(_draw(logits, 20_000, _ours(names)), minlength=12)
  possible = expected > 0
  assert counts[~possible].sum() == 0
  if possible.sum() > 1:
    test = scipy.stats.chisquare(counts[possible], 20_000 * expected[possible])
    assert test.pvalue > 1e-4, (counts, 20_000 * expected)
    # The control: the same draws do not follow another distribution.
    other = np.full(possible.sum(), 20_000 / possible.sum())
    assert scipy.stats.chisquare(counts[possible], other).pvalue < 1e-6


def test_draws_without_replacement():
  """Beams draw pairs in order, each from what the first has left."""
  p = np.array([0.5, 0.25, 0.15, 0.1])
  keys = jax.random.split(jax.random.key(1), 30_000)
  scores = jnp.broadcast_to(jnp.log(p).astype(jnp.float32), (30_000, 1, 4))
  drawn = scores + sampling.noise(keys, jnp.zeros((30_000,), jnp.int32), scores)
  pairs = np.asarray(jax.lax.top_k(drawn[:, 0], 2)[1])
  counts = np.bincount(4 * pairs[:, 0] + pairs[:, 1], minlength=16)
  expected = np.outer(p, p) / (1 - p)[:, None]
  np.fill_diagonal(expected, 0.0)
  where = expected.reshape(-1) > 0
  test = scipy.stats.chisquare(
    counts[where], 30_000 * expected.reshape(-1)[where]
  )
  assert counts[~where].sum() == 0 and test.pvalue > 1e-4
