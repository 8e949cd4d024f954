"""Generation: processors, attentions, lengths, and under jit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.generation import programs


def test_a_processor_that_is_made_anew_is_reported(tiny, batch):
  def make(banned):
    def ban(length, tokens, scores):
      assert length.shape == scores.shape[:2] == tokens.shape[:2]
      # Whatever scores are padded to.
      assert scores.shape[2] == tiny.module.config.decoder.vocab_size
      return scores.at[..., banned].set(-jnp.inf)

    return ban

  free = tiny.generate(batch[0], max_length=6).sequences
  banned = int(free[0, 1])
  ban = make(banned)
  for _ in range(2):
    found = tiny.generate(batch[0], max_length=6, logits_processor=ban)
    assert banned not in np.asarray(found.sequences[:, 1:])
  with pytest.warns(UserWarning, match="compiles again"):
    tiny.generate(batch[0], max_length=6, logits_processor=[make(banned)])


@pytest.mark.parametrize(
  "broken",
  [
    lambda length, tokens, scores: scores[..., :1],
    lambda length, tokens, scores: scores.astype(jnp.bfloat16),
  ],
  ids=["shape", "dtype"],
)
def test_a_processor_that_changes_the_scores_shape_is_refused(
  tiny, batch, broken
):
  with pytest.raises(ValueError, match="return as many of the same dtype"):
    tiny.generate(batch[0], max_length=4, logits_processor=broken)


class _Ban:
  def __init__(self, token):
    self.token = token

  def __call__(self, length, tokens, scores):
    return scores.at[..., self.token].set(-jnp.inf)

  def nothing(self, length, tokens, scores):
    return scores


def test_processors_that_are_kept_are_not_reported(tiny, batch):
  """Two of one class, and a method, which is a new object at each look."""
  bans = [_Ban(7), _Ban(8)]
  for _ in range(2):
    tiny.generate(
      batch[0], max_length=4, logits_processor=[*bans, bans[0].nothing]
    )
  before = programs.run._cache_size()
  tiny.generate(
    batch[0], max_length=4, logits_processor=[*bans, bans[0].nothing]
  )
  assert programs.run._cache_size() == before
  with pytest.warns(UserWarning, match="compiles again"):
    tiny.generate(batch[0], max_length=4, logits_processor=_Ban(7))
  with pytest.raises(TypeError, match="cannot be hashed"):
    tiny.generate(batch[0], logits_processor=_Unhashable())


@dataclasses.dataclass
class _Unhashable:
  """As dataclasses are that are not frozen."""

  def __call__(self, length, tokens, scores):
    return scores


def test_attentions_of_what_was_found(tiny, batch):
  found = tiny.generate(
    batch[0],
    max_length=6,
    num_beams=3,
    num_return_sequences=2,
    output_attentions=True,
  )
  rows, length = found.sequences.shape
  layers = tiny.module.config.decoder.num_layers
  assert rows == 2 * len(batch[0]) and len(found.cross_attentions) == layers
  for weights, keys in (
    (found.decoder_attentions[0], length),
    (found.cross_attentions[0], batch[0].shape[1]),
  ):
    assert weights.shape[0] == rows and weights.shape[2:] == (length, keys)
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)


def test_attentions_are_none_to_a_prompts_padding(tiny, batch):
  mask = np.array([[1, 0, 1], [1, 1, 1]])
  for encoded in (None, tiny.encode(batch[0])):
    found = tiny.generate(
      batch[0] if encoded is None else None,
      encoder_outputs=encoded,
      decoder_input_ids=[[3, 9, 8], [3, 9, 8]],
      decoder_attention_mask=mask,
      max_length=7,
      num_beams=2,
      num_return_sequences=2,
      output_attentions=True,
    )
    to_second = found.decoder_attentions[0][:, :, 2:, 1]
    assert (to_second[:2] == 0).all() and (to_second[2:] > 0).all()
    assert found.cross_attentions[0].shape[3] == batch[0].shape[1]


def test_lengths_where_padding_is_the_end(tiny, batch):
  """The first padding is no end: a row may run to its maximum."""
  tiny.generation_config.eos_token_id = tiny.generation_config.pad_token_id = 1
  for length in (9, 31, 32, 33):
    found = tiny.generate(batch[0], max_length=length, min_length=length)
    assert found.sequences.shape == (len(batch[0]), length)


def test_generation_inside_jit(tiny, batch):
  plain = tiny.generate(batch[0], max_length=7).sequences

  @jax.jit
  def run(params, ids):
    return tiny.generate(ids, max_length=7, params=params)

  traced = run(tiny.params, batch[0]).sequences
  np.testing.assert_array_equal(traced[:, : plain.shape[1]], plain)
  assert (traced[:, 7:] == tiny.special_tokens.pad).all()
  encoded = tiny.encode(batch[0])
  again = tiny.generate(encoder_outputs=encoded, max_length=7).sequences
  np.testing.assert_array_equal(again, plain)
