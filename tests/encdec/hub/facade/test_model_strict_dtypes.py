"""The facade where JAX promotes no dtypes: `jax_numpy_dtype_promotion`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from encdec.hub import compose_config

# Options that are set together: each rule of a search is traced at least once.
RULES = {
  "repetition_penalty": 1.2,
  "encoder_repetition_penalty": 1.1,
  "no_repeat_ngram_size": 2,
  "encoder_no_repeat_ngram_size": 3,
  "bad_words_ids": [[7], [9, 8]],
  "sequence_bias": {(10,): 1.0, (12, 14): 2.0},
  "suppress_tokens": [6, 8],
  "begin_suppress_tokens": [9],
  "min_length": 3,
  "min_new_tokens": 3,
  "forced_bos_token_id": 11,
  "forced_eos_token_id": 4,
  "exponential_decay_length_penalty": (2, 1.3),
  "remove_invalid_values": True,
  "renormalize_logits": True,
  "eos_token_id": [4, 13],
  "logits_processor": lambda length, tokens, scores: scores * 2,
}
KEPT = {
  "output_scores": True,
  "output_logits": True,
  "output_attentions": True,
  "return_dict_in_generate": True,
}
WARPS = {
  "do_sample": True,
  "temperature": 0.7,
  "top_k": 9,
  "top_p": 0.9,
  "min_p": 0.01,
  "typical_p": 0.9,
  "epsilon_cutoff": 0.001,
  "eta_cutoff": 0.001,
}
SEARCHES = {
  "greedy": {},
  "rules": RULES | KEPT,
  "beams": {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
  "beams by rules": {
    **RULES,
    **KEPT,
    "num_beams": 3,
    "num_return_sequences": 2,
    "scoring": "gnmt",
    "early_stopping": "never",
    "word_starts": np.ones(37, bool),
  },
  "samples": WARPS | {"num_return_sequences": 2},
  "beam samples": WARPS | {"num_beams": 2},
  "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
}


@pytest.fixture(params=["float32", "bfloat16"])
def model(request, random_model):
  """Of an architecture whose positions come from ids, in all of one dtype."""
  config = transformers.RobertaConfig(
    vocab_size=37,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=40,
  )
  pair = compose_config(config, config)
  pair.decoder_start_token_id, pair.eos_token_id, pair.pad_token_id = 3, 4, 1
  made = random_model(pair, dtype=jnp.dtype(request.param))
  made.params = jax.tree.map(
    lambda leaf: leaf.astype(request.param), made.params
  )
  return made


@pytest.fixture
def strict():
  with jax.numpy_dtype_promotion("strict"):
    yield


IDS = np.array([[5, 6, 7, 8], [9, 10, 11, 1]])
MASK = IDS != 1
LABELS = np.array([[5, 6, 4], [7, 4, -100]])


@pytest.mark.sample(1)
def test_calls(model, strict):
  def loss(params, ids, mask, labels):
    key = jax.random.key(0)
    given = {"labels": labels, "params": params, "dropout_rng": key}
    return model(ids, mask, train=True, **given).loss

  losses = []
  for convert in (np.asarray, jnp.asarray):
    value, grads = jax.value_and_grad(loss)(
      model.params, *map(convert, (IDS, MASK, LABELS))
    )
    losses.append(float(value))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(grads)}
    assert dtypes == {model.module.dtype}
  assert np.isfinite(losses).all() and losses[0] == losses[1]
  out = model(
    IDS.astype(np.uint8),
    MASK,
    decoder_input_ids=IDS,
    decoder_attention_mask=MASK.astype(float),
    token_type_ids=np.zeros_like(IDS),
    output_attentions=True,
    output_hidden_states=True,
  )
  assert out.logits.dtype == jnp.float32
  embeds = np.zeros((2, 4, 16), np.float32)
  model(inputs_embeds=embeds, decoder_inputs_embeds=embeds)
  dense = jnp.broadcast_to(jnp.asarray(MASK)[:, None], (2, 4, 4))
  encoded = model.encode(IDS, dense, IDS * 0 + 2)
  cache = model.init_cache(2, 6, encoded)
  part = model.decode(
    IDS[:, :2], encoded, MASK, jnp.asarray(MASK[:, :2]), past_key_values=cache
  )
  model.decode(IDS[:, 2:], encoded, past_key_values=part.past_key_values)


@pytest.mark.sample(1)
@pytest.mark.parametrize("search", SEARCHES)
def test_searches(model, strict, search):
  options = SEARCHES[search]
  key = jax.random.key(0) if "do_sample" in options else None
  arguments = {
    "attention_mask": MASK,
    "max_length": 7,
    "prng_key": key,
    **options,
  }
  found = model.generate(IDS, **arguments).sequences
  with jax.numpy_dtype_promotion("standard"):
    again = model.generate(IDS, **arguments).sequences
  np.testing.assert_array_equal(found, again)
