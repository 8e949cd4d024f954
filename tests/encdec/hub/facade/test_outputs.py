"""Outputs cross jit, are pickled, and lie where inputs do."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def test_an_output_crosses_jit(tiny, batch):
  @jax.jit
  def call(params, ids, targets):
    return tiny(ids, decoder_input_ids=targets, labels=targets, params=params)

  traced = call(tiny.params, *batch)
  plain = tiny(batch[0], decoder_input_ids=batch[1], labels=batch[1])
  assert traced.keys() == plain.keys() == (
    "loss", "logits", "encoder_last_hidden_state"
  )  # fmt: skip
  np.testing.assert_allclose(traced.logits, plain.logits, atol=1e-5)
  assert traced["logits"] is traced[1] is traced.to_tuple()[1]
  assert traced.get("past_key_values") is None
  with pytest.raises(KeyError, match="past_key_values"):
    traced["past_key_values"]
  assert "loss" in traced and len(traced) == 3 and next(iter(traced)) == "loss"
  assert dict(traced.items())["loss"] == traced.loss


@pytest.mark.sample(1)
@pytest.mark.parametrize("beams", [1, 2])
def test_results_lie_beside_other_arrays_as_inputs_do(tiny, batch, beams):
  """Committed to a device where the ids or parameters are, and only there."""
  options = {
    "max_length": 6,
    "num_beams": beams,
    "num_return_sequences": beams,
    "output_scores": True,
  }
  found = tiny.generate(np.asarray(batch[0]), **options)
  for array in jax.tree.leaves(found):
    assert not array.committed
  devices = jax.devices()[:2]
  rows = jax.sharding.NamedSharding(
    jax.make_mesh((2,), ("x",), devices=devices), jax.sharding.PartitionSpec()
  )
  beside = jax.device_put(jnp.zeros(found.sequences.shape, jnp.int32), rows)
  together = jax.jit(jnp.add)(beside, found.sequences)
  np.testing.assert_array_equal(together, found.sequences)
  assert together.devices() == set(devices)
  second = jax.device_put(jnp.asarray(batch[0]), devices[1])
  found = tiny.generate(second, **options)
  for array in jax.tree.leaves(found):
    assert array.committed and array.devices() == {devices[1]}
  # A mesh of one device, whose specs are of the ids' rank.
  one = jax.make_mesh((1,), ("x",), devices=devices[:1])
  spec = jax.sharding.PartitionSpec(None, None)
  ids = jax.device_put(
    jnp.asarray(batch[0]), jax.sharding.NamedSharding(one, spec)
  )
  tiny.generate(ids, **options)


def test_outputs_can_be_pickled(tiny, batch):
  output = tiny(batch[0], decoder_input_ids=batch[1])
  again = pickle.loads(pickle.dumps(output))
  np.testing.assert_array_equal(again.logits, output.logits)
