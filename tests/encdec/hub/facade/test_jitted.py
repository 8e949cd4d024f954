"""Steps through a cache give the logits of the whole, also when it grows."""

import jax
import jax.numpy as jnp
import numpy as np

from encdec.hub.facade import jitted


def test_steps_with_a_cache_are_the_whole(tiny, batch):
  states = tiny.encode(batch[0]).last_hidden_state
  segments = jnp.ones(states.shape[:2], jnp.int32)
  whole = tiny(batch[0], decoder_input_ids=batch[1]).logits
  form = jitted.decoding_form(tiny.module, tiny.params)
  cache = jitted.empty_cache(tiny.module, 2, 2, states.shape[1])
  steps = []
  for n in range(batch[1].shape[1]):
    if n == cache.slots:
      cache = jitted.grown(cache, 4)
    logits, cache = jitted.decode_cached(
      tiny.module, form, batch[1][:, n : n + 1], None, states, segments, cache
    )
    steps.append(logits)
  np.testing.assert_allclose(np.concatenate(steps, 1), whole, atol=1e-5)
  assert np.abs(steps[0] - steps[1]).max() > 1e-3


def test_tracers_are_seen_in_a_tree():
  seen = []
  jax.eval_shape(lambda x: seen.append(jitted.is_traced({"a": [x]})), 1.0)
  assert seen == [True] and not jitted.is_traced({"a": [1.0]})
