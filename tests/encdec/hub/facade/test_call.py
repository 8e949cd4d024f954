"""Calls of a model: dropout, loss, masks for each query, the cache."""

import jax
import numpy as np
import pytest

from encdec.layers import kv_cache


def test_dropout_follows_its_key(tiny, batch):
  def states(**kwargs):
    return np.asarray(tiny.encode(batch[0], **kwargs)[0])

  one = states(train=True, dropout_rng=jax.random.key(0))
  np.testing.assert_array_equal(
    one, states(train=True, dropout_rng=jax.random.PRNGKey(0))
  )
  other = states(train=True, dropout_rng=jax.random.key(1))
  off = states(dropout_rng=jax.random.key(0))
  assert np.abs(one - other).max() > 1e-3 and np.abs(one - off).max() > 1e-3
  with pytest.raises(ValueError, match="pass dropout_rng"):
    states(train=True)


def test_the_first_loss_does_not_see_the_labels(tiny, batch):
  """Also where the start token and padding are one id, as GPT-2's are."""
  tiny.config.decoder_start_token_id = tiny.config.pad_token_id = 4
  labels = np.array(batch[1])
  first = tiny(batch[0], labels=labels).logits[:, 0]
  labels[:, 1:] = (labels[:, 1:] + 1) % 30 + 5
  other = tiny(batch[0], labels=labels).logits
  np.testing.assert_array_equal(other[:, 0], first)


def test_a_mask_for_each_query(tiny, batch):
  length = batch[0].shape[1]
  causal = np.tril(np.ones((length, length), int))
  ids = batch[0].copy()
  masked = tiny.encode(ids, np.broadcast_to(causal, (2, length, length)))
  ids[:, -1] = 5
  later = tiny.encode(ids, np.broadcast_to(causal, (2, 2, length, length)))
  np.testing.assert_allclose(
    masked.last_hidden_state[:, :-1], later.last_hidden_state[:, :-1], atol=1e-6
  )
  free = tiny.encode(batch[0])
  assert np.abs(free[0] - masked[0]).max() > 1e-3
  with pytest.raises(ValueError, match="boolean or whole numbers"):
    tiny.encode(ids, np.ones((2, length, length), np.float32))


@pytest.mark.sample(1)
@pytest.mark.parametrize("block", [kv_cache.BLOCK, 8])
def test_a_cache_grows_and_says_where_it_ends(tiny, batch, set_constant, block):
  set_constant(kv_cache, "BLOCK", block)
  whole = tiny(batch[0], decoder_input_ids=batch[1])
  first = tiny(batch[0], decoder_input_ids=batch[1][:, :3], use_cache=True)
  small = tiny.init_cache(2, 3, tiny.encode(batch[0]))
  held = tiny.decode(
    batch[1][:, :3], tiny.encode(batch[0]), past_key_values=small
  )
  for past in (first.past_key_values, held.past_key_values):
    step = tiny(
      batch[0], decoder_input_ids=batch[1][:, 3:], past_key_values=past
    )
    np.testing.assert_allclose(step.logits[:, 0], whole.logits[:, 3], atol=1e-5)
    assert int(step.past_key_values.length) == 4
  with pytest.raises(ValueError, match="position table ends at 40"):
    tiny.init_cache(2, 41, tiny.encode(batch[0]))
  with pytest.raises(ValueError, match="batch_size=3"):
    tiny.init_cache(3, 4, tiny.encode(batch[0]))
