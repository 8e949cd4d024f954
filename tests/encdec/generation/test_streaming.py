"""Streams: what `generate` finds, whoever shared the batch."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import sharding
from encdec.generation.decode_params import unstack
from encdec.generation.generate import generate, start_prompt
from encdec.generation.search.options import ScoreRules, SearchOptions
from encdec.generation.streaming import generate_stream
from encdec.layers import kv_cache
from train.mesh import MeshConfig, batch_sharding, make_mesh

SOURCES, LENGTH, SLOTS, ROWS = 37, 8, 11, 4
SEARCHES = {
  "greedy": {
    "sum_log_probs": True,
    "rules": ScoreRules(repetition_penalty=jnp.float32(1.2)),
  },
  "beams": {"num_beams": 3, "num_returned": 2},
  "groups": {
    "num_beams": 4,
    "num_groups": 2,
    "diversity_penalty": jnp.float32(0.5),
  },
}


@pytest.fixture(scope="module")
def sources():
  rng = np.random.default_rng(0)
  return [
    rng.integers(4, 120, rng.integers(3, LENGTH + 1)) for _ in range(SOURCES)
  ]


def _place(sources):
  """Rows of 8, as numpy arrays."""
  index = np.arange(LENGTH, dtype=np.int32)
  lengths = [0 if ids is None else len(ids) for ids in sources]
  tokens = np.zeros((len(sources), LENGTH), np.int32)
  for row, ids in enumerate(sources):
    tokens[row, : lengths[row]] = 0 if ids is None else ids
  segments = (index[None] < np.asarray(lengths)[:, None]).astype(np.int32)
  positions = np.broadcast_to(index, tokens.shape)
  return {
    "encoder_tokens": jnp.asarray(tokens),
    "encoder_segments": jnp.asarray(segments),
    "encoder_positions": jnp.asarray(positions),
  }


def _options(**options) -> SearchOptions:
  return SearchOptions(
    jnp.int32(SLOTS + 1), jnp.int32(0), end_tokens=(2,), **options
  )


@pytest.fixture(scope="module")
def expected(tiny_module, tiny_params, sources):
  """`expected(search)`: the texts of all sources in one batch."""
  tree = unstack(jax.tree.map(jnp.asarray, tiny_params), tiny_module())

  @functools.cache
  def texts(search):
    return generate(
      tiny_module(),
      tree,
      *_place(sources).values(),
      options=_options(**SEARCHES[search]),
      prompt=start_prompt(SOURCES, 1),
      cache_length=SLOTS,
    )

  return texts


def _stream(module, tree, sources, place=_place, rows=ROWS, **options):
  return generate_stream(
    module,
    tree,
    enumerate(sources),
    lambda batch: place([row and row[1] for row in batch]),
    options=_options(**options),
    start_token=1,
    cache_length=SLOTS,
    rows=rows,
  )


def _check(found, expected, returned):
  """Each source once, with the texts and scores of the batch."""
  numbers = [number for (number, _), _ in found]
  assert sorted(numbers) == list(range(SOURCES))
  assert numbers != sorted(numbers), "rows are refilled as they end"
  for (number, _), texts in found:
    mine = slice(number * returned, (number + 1) * returned)
    np.testing.assert_array_equal(texts.tokens, expected.tokens[mine])
    np.testing.assert_array_equal(texts.lengths, expected.lengths[mine])
    np.testing.assert_allclose(texts.scores, expected.scores[mine], atol=1e-4)


def test_rows_are_refilled_in_the_middle_of_a_ring_of_blocks(
  tiny_module, tiny_params, sources, expected, set_constant
):
  batch = expected("beams")
  set_constant(kv_cache, "BLOCK", 8)
  options = SEARCHES["beams"]
  tree = unstack(jax.tree.map(jnp.asarray, tiny_params), tiny_module())
  found = list(_stream(tiny_module(), tree, sources, **options))
  _check(found, batch, options["num_returned"])


@pytest.mark.sample(1)
@pytest.mark.parametrize("search", SEARCHES)
def test_a_stream_finds_what_a_batch_finds(
  tiny_module, tiny_params, sources, expected, search
):
  options = SEARCHES[search]
  assert len({*np.asarray(expected(search).lengths).tolist()}) > 2
  tree = unstack(jax.tree.map(jnp.asarray, tiny_params), tiny_module())
  found = list(_stream(tiny_module(), tree, sources, **options))
  _check(found, expected(search), options.get("num_returned", 1))


def test_a_source_without_a_token_has_no_text(
  tiny_module, tiny_params, sources
):
  """Whether it begins a batch or takes a row later."""
  tree = unstack(jax.tree.map(jnp.asarray, tiny_params), tiny_module())
  some = list(sources[:12])
  for number in (1, 7, 11):
    some[number] = some[number][:0]
  found = _stream(tiny_module(), tree, some, **SEARCHES["greedy"])
  for (_, source), texts in found:
    assert (len(source) == 0) == (texts.lengths[0] == 1)
    assert len(source) or not texts.tokens[0, 1:].any()


@pytest.mark.sample(1)
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)], ids=str)
def test_a_mesh_streams_the_same(
  tiny_module, tiny_params, sources, expected, shape
):
  mesh = make_mesh(MeshConfig(1, *shape))
  rules = sharding.DEFAULT_RULES
  with jax.set_mesh(mesh):
    module = tiny_module(rules)
    tree = jax.device_put(
      tiny_params, sharding.param_specs(tiny_params, rules, mesh)
    )
    tree = jax.jit(lambda tree: unstack(tree, module))(tree)

    def place(batch):
      return jax.device_put(_place(batch), batch_sharding(mesh, rules))

    found = list(
      _stream(module, tree, sources, place, rows=16, **SEARCHES["beams"])
    )
  _check(found, expected("beams"), 2)


def test_sources_are_read_as_rows_end(tiny_module, tiny_params, sources):
  tree = unstack(jax.tree.map(jnp.asarray, tiny_params), tiny_module())
  read = iter(sources)
  found = _stream(tiny_module(), tree, read, **SEARCHES["greedy"])
  for count, _ in enumerate(found, 1):
    unread = operator.length_hint(read)
    assert SOURCES - unread <= count + 2 * ROWS


@pytest.mark.parametrize(
  ("options", "named"),
  [
    ({"sample": True}, "no sampling"),
    ({"keep_scores": True}, "scores of every step"),
    (
      {"rules": ScoreRules(encoder_no_repeat_ngram_size=2)},
      "encoder_no_repeat_ngram_size",
    ),
    ({"num_beams": 2, "num_returned": 3}, "exceeds num_beams"),
  ],
)
def test_what_a_stream_cannot_do_is_refused(tiny_module, options, named):
  with pytest.raises(ValueError, match=named):
    next(_stream(tiny_module(), {}, [], **options))
