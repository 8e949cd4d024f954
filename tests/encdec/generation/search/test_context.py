"""Every search: rows do not know of each other, and scores are float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.generation import programs
from encdec.generation.decode_params import unstack
from encdec.generation.generate import generate, row_keys, start_prompt
from encdec.generation.search import topk
from encdec.generation.search.options import ScoreRules, SearchOptions, Warps
from encdec.layers import kv_cache
from encdec.model import FlaxEncoderDecoderModule, param_shapes

MODES = {
  "greedy": {},
  "sample": {"sample": True, "warps": Warps(top_k=9)},
  "samples": {"sample": True, "num_returned": 3},
  "beams": {"num_beams": 3, "num_returned": 2},
  "beam samples": {"num_beams": 3, "sample": True, "num_returned": 3},
  "groups": {
    "num_beams": 4,
    "num_groups": 2,
    "diversity_penalty": jnp.float32(0.7),
    "num_returned": 4,
  },
}


def _model(random_params, vocab_size, vocab_multiple, end=2.0):
  bert, roberta = ARCHS["bert"], ARCHS["roberta"]
  shape = {
    "vocab_size": vocab_size,
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
  }
  config = EncDecConfig(
    bert.stack_config({**bert.PRESETS["tiny"], **shape}, "encoder"),
    roberta.stack_config({**roberta.PRESETS["tiny"], **shape}, "decoder"),
    vocab_multiple=vocab_multiple,
  )
  module = FlaxEncoderDecoderModule(config)
  params = random_params(param_shapes(module), 0.3)
  params["decoder"]["head"]["bias"][2:4] = end, 1.0
  return module, jax.tree.map(jnp.asarray, params)


@pytest.fixture(scope="module")
def model(random_params):
  return _model(random_params, 31, 16)


def _source(rows=6, length=9):
  rng = np.random.default_rng(0)
  tokens = jnp.asarray(rng.integers(4, 31, (rows, length)), jnp.int32)
  index = jnp.arange(length, dtype=jnp.int32)
  lengths = jnp.asarray([length, 5, 7, length, 3, 8])[:rows]
  segments = (index[None] < lengths[:, None]).astype(jnp.int32)
  return tokens, segments, jnp.broadcast_to(index, tokens.shape)


def _run(model, source, key=None, dtype=None, **options):
  module, params = model
  if dtype is not None:
    module = module.clone(dtype=dtype)
  options = SearchOptions(
    **{
      "max_length": jnp.int32(12),
      "pad_token": jnp.int32(0),
      "end_tokens": (2, 3),
      **options,
    }
  )
  if options.sample and key is None:
    key = jax.random.key(7)
  return generate(
    module,
    unstack(params, module),
    *source,
    options=options,
    prompt=start_prompt(len(source[0]), 1),
    cache_length=14,
    key=key,
  )


@pytest.mark.sample(1)
@pytest.mark.parametrize("mode", MODES)
def test_a_row_is_the_same_alone_and_with_more_padding(model, mode):
  options, source = MODES[mode], _source()
  rows, returned = len(source[0]), options.get("num_returned", 1)
  whole = _run(model, source, **options)
  keys = row_keys(jax.random.key(7), rows)
  assert len({*np.asarray(whole.lengths).tolist()}) > 1
  for row in (1, 4):
    part = tuple(a[row : row + 1] for a in source)
    part = tuple(jnp.pad(a, ((0, 0), (0, 4))) for a in part)
    alone = _run(model, part, key=keys[row : row + 1], **options)
    mine = slice(row * returned, (row + 1) * returned)
    np.testing.assert_array_equal(alone.tokens, whole.tokens[mine])
    np.testing.assert_array_equal(alone.lengths, whole.lengths[mine])
    if whole.scores is not None:
      np.testing.assert_allclose(alone.scores, whole.scores[mine], atol=1e-4)


@pytest.mark.sample(1)
@pytest.mark.parametrize("mode", ["beams", "groups"])
def test_moving_the_cache_finds_the_same(model, set_constant, mode):
  """Beyond SHARED_BEAMS beams caches move; the texts are those of ancestors."""

  def run(end_tokens):
    options = {**MODES[mode], "end_tokens": end_tokens}
    return _run(model, _source(), keep_scores=True, **options)

  shared, endless = run((2, 3)), run(())
  set_constant(programs, "SHARED_BEAMS", 0)
  np.testing.assert_array_equal(run((2, 3)).tokens, shared.tokens)
  # What a source that is done still scores is nobody's; here none is.
  moved = run(())
  np.testing.assert_array_equal(moved.tokens, endless.tokens)
  np.testing.assert_allclose(moved.step_scores, endless.step_scores, atol=2e-4)


@pytest.mark.sample(1)
@pytest.mark.parametrize("mode", MODES)
def test_keys_in_several_blocks_find_the_same(model, set_constant, mode):
  options = MODES[mode]
  one = _run(model, _source(), **options)
  set_constant(kv_cache, "BLOCK", 8)
  several = _run(model, _source(), **options)
  np.testing.assert_array_equal(several.tokens, one.tokens)


@pytest.mark.sample(1)
@pytest.mark.parametrize("rules", ["none", "min_length", "ngrams"])
@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_logits_are_ranked_in_either_layout(
  random_params, set_constant, mode, rules
):
  """Of many tokens, padded, and enough rows: as if they had been transposed."""
  options = (
    MODES[mode]
    | {
      "none": {},
      "min_length": {"rules": ScoreRules(min_length=jnp.int32(6))},
      "ngrams": {"rules": ScoreRules(no_repeat_ngram_size=2)},
    }[rules]
  )
  model = _model(random_params, 1500, 128, end=5.0)
  source = tuple(jnp.tile(part, (3, 1)) for part in _source())
  source = (source[0].at[:6, 0].set(jnp.arange(100, 106)), *source[1:])
  turned = []
  prefers_vocab_major = topk.prefers_vocab_major

  def prefers(rows, platform):
    turned.append((rows, platform))
    return prefers_vocab_major(rows, platform)

  set_constant(topk, "prefers_vocab_major", prefers)
  columns = _run(model, source, **options)
  assert turned and all(prefers_vocab_major(*each) for each in turned), (
    "this is what is tested"
  )
  set_constant(topk, "prefers_vocab_major", lambda *_: False)
  standing = _run(model, source, **options)
  np.testing.assert_array_equal(columns.tokens, standing.tokens)
  assert len(set(np.asarray(columns.lengths).tolist())) > 1
  if mode == "beams":
    np.testing.assert_allclose(columns.scores, standing.scores, atol=1e-5)


def test_scores_stay_float32_in_bfloat16(model):
  found = _run(
    model, _source(), dtype=jnp.bfloat16, num_beams=3, keep_scores=True
  )
  assert found.scores.dtype == found.step_scores.dtype == jnp.float32
  # They are no bfloat16 numbers in float32's clothes.
  rounded = found.scores.astype(jnp.bfloat16).astype(jnp.float32)
  assert not np.array_equal(rounded, found.scores)
  steps = found.step_scores[:, 0, 0, :31]
  np.testing.assert_allclose(jnp.exp(steps).sum(-1), 1.0, atol=1e-5)


@pytest.mark.sample(1)
@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_a_prompt_is_read_by_every_text(model, mode):
  """Going on from the first tokens of what was found finds the rest again."""
  module, params = model
  source = _source()
  whole = _run(model, source, **{**MODES[mode], "num_returned": 1})
  tokens = whole.tokens[:, :3]
  # A text of two tokens has ended; the others go on greedily.
  going = np.asarray(whole.lengths) > 3
  assert going.any()
  ones = jnp.ones_like(tokens)
  again = generate(
    module,
    unstack(params, module),
    *(a[going] for a in source),
    options=SearchOptions(
      jnp.int32(12), jnp.int32(0), end_tokens=(2, 3),
      **{**MODES[mode], "num_returned": 1},
    ),
    prompt=programs.Prompt(
      tokens[going], ones[going], jnp.cumsum(ones, axis=1)[going] - 1
    ),
    cache_length=14,
  )  # fmt: skip
  np.testing.assert_array_equal(again.tokens[:, :3], tokens[going])
  if mode == "greedy":
    np.testing.assert_array_equal(again.tokens, whole.tokens[going])
  else:
    # What a search from the start found is open to one from further on.
    length = np.asarray(whole.lengths)[going]
    same = np.asarray(again.tokens == whole.tokens[going]).all(axis=1)
    assert same.any() and (length > 3).all()


def test_keys_are_one_or_one_a_row():
  key = jax.random.key(0)
  assert row_keys(key, 3)[2] == jax.random.fold_in(key, 2)
  with pytest.raises(ValueError, match="one key, or one a row"):
    row_keys(jax.random.split(key, 2), 3)
