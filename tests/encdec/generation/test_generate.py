"""Greedy generation: early exit, limits, and independence of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.generation import programs
from encdec.generation.decode_params import unstack
from encdec.generation.generate import generate, start_prompt
from encdec.generation.search.options import ScoreRules, SearchOptions
from encdec.model import FlaxEncoderDecoderModule, param_shapes

START = 1


@pytest.fixture(scope="module")
def model(random_params):
  bert = ARCHS["bert"]
  hub = {
    **bert.PRESETS["tiny"],
    "vocab_size": 31,
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
  }
  config = EncDecConfig(
    bert.stack_config(hub, "encoder"), bert.stack_config(hub, "decoder")
  )
  module = FlaxEncoderDecoderModule(config)
  params = random_params(param_shapes(module), 0.3)
  # A random model never ends; this one does, here and there.
  params["decoder"]["head"]["bias"][2:4] = 2.0, 1.5
  return module, unstack(jax.tree.map(jnp.asarray, params), module)


def _source(rows=8, length=10, seed=0):
  rng = np.random.default_rng(seed)
  tokens = jnp.asarray(rng.integers(4, 31, (rows, length)), jnp.int32)
  segments = jnp.ones_like(tokens)
  positions = jnp.broadcast_to(
    jnp.arange(length, dtype=jnp.int32), (rows, length)
  )
  return tokens, segments, positions


def _options(max_length, min_length=0, **options):
  return SearchOptions(
    **{
      "max_length": jnp.int32(max_length),
      "pad_token": jnp.int32(0),
      "end_tokens": (2, 3),
      "rules": ScoreRules(min_length=jnp.int32(min_length)),
      **options,
    }
  )


def _run(model, source, *, cache_length=16, start=START, **options):
  module, params = model
  out = generate(
    module,
    params,
    *source,
    options=_options(**{"max_length": 16, **options}),
    prompt=start_prompt(len(source[0]), start),
    cache_length=cache_length,
  )
  return np.asarray(out.tokens), np.asarray(out.lengths)


def test_rows_end_by_themselves(model):
  tokens, lengths = _run(model, _source())
  assert len(set(lengths.tolist())) > 1
  for row, length in zip(tokens, lengths, strict=True):
    assert row[0] == 1 and (row[length:] == 0).all()
    assert row[length - 1] in (2, 3) or length == 16
    assert not set(row[1 : length - 1].tolist()) & {2, 3}


def test_batch_mates_and_padding_change_nothing(model):
  source = _source()
  tokens, lengths = _run(model, source)
  part, _ = _run(model, tuple(a[2:5] for a in source))
  np.testing.assert_array_equal(part, tokens[2:5])
  wide = tuple(jnp.pad(a, ((0, 0), (0, 3))) for a in source)
  padded, padded_lengths = _run(model, wide)
  np.testing.assert_array_equal(padded, tokens)
  np.testing.assert_array_equal(padded_lengths, lengths)


@pytest.mark.parametrize("min_length", [4, 9])
def test_min_length(model, min_length):
  _, free = _run(model, _source())
  _, lengths = _run(model, _source(), min_length=min_length)
  # The end token comes after min_length tokens at the earliest.
  assert lengths.min() > min_length >= free.min()


@pytest.mark.parametrize("states", [False, True])
def test_a_large_source_is_encoded_in_parts(model, set_constant, states):
  """Its caches are those of all rows at once, and so is their order."""
  module, params = model[0].clone(cores=1), model[1]
  tokens, segments, positions = _source()
  segments = segments.at[3, 6:].set(0)
  encoded = None
  if states:
    encoded = module.apply(
      {"params": params}, tokens, segments, positions, method="encode"
    ).states
  given = None if states else tokens, segments, positions, encoded

  def encode():
    lowered = programs.encode.lower(module, params, *given)
    return lowered.as_text(), programs.encode(module, params, *given)

  whole_text, whole = encode()
  set_constant(programs, "CACHED", 3 * 10 * 32)
  text, parts = encode()
  assert "stablehlo.while" in text and "stablehlo.while" not in whole_text
  assert jax.tree.structure(parts) == jax.tree.structure(whole)
  np.testing.assert_array_equal(parts.segments, segments)
  for found, expected in zip(
    *map(jax.tree.leaves, (parts, whole)), strict=True
  ):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ("batch", "most", "rows"),
  [(8, 8, 8), (32, 8, 8), (48, 10, 8), (6, 4, 3), (31, 8, 31), (5, 1, 1)],
)
def test_parts_are_of_one_size_and_not_tiny(model, batch, most, rows):
  module = model[0].clone(cores=3)
  size = programs.CACHED * 3 // most
  assert programs._rows_at_once(batch, size, module) == rows
  module = module.clone(platform="gpu")
  assert programs._rows_at_once(batch, size, module) == batch


def test_lengths_compile_once(model):
  source = _source()
  _run(model, source)
  before = programs.run._cache_size()
  for max_length in (5, 9, 16):
    tokens, _ = _run(model, source, max_length=max_length, min_length=3)
    assert not tokens[:, max_length:].any()
  assert programs.run._cache_size() == before
  _run(model, source, cache_length=17)
  assert programs.run._cache_size() == before + 1


def test_under_jit(model):
  module, params = model
  source = _source()

  @jax.jit
  def run(params, *source):
    return generate(
      module,
      params,
      *source,
      options=_options(16),
      prompt=start_prompt(8, START),
      cache_length=16,
    ).tokens

  np.testing.assert_array_equal(run(params, *source), _run(model, source)[0])


@pytest.mark.parametrize(
  "options, message",
  [
    ({"cache_length": 25, "max_length": 25}, r"position table \(24\)"),
    ({"max_length": 18}, "fit the cache"),
    ({"max_length": 1}, "must exceed the prompt"),
  ],
)
def test_bad_lengths(model, options, message):
  with pytest.raises(ValueError, match=message):
    _run(model, _source(), **options)


@pytest.mark.parametrize(
  "start, changes",
  [(31, {}), (1, {"end_tokens": (2, -1)}), (1, {"pad_token": jnp.int32(99)})],
)
def test_ids_outside_the_vocabulary(model, start, changes):
  with pytest.raises(ValueError, match="outside the decoder's vocabulary"):
    _run(model, _source(), start=start, **changes)
