"""Parameters, dtypes, special tokens and configs of a model of the facade."""

import copy

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import FlaxEncoderDecoderModel


def _equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_model_without_init_allocates_nothing(tiny, tiny_config, batch):
  model = FlaxEncoderDecoderModel(tiny_config, _do_init=False)
  for use in (
    lambda: model.params,
    lambda: model(batch[0], decoder_input_ids=batch[1]),
    lambda: setattr(model, "params", tiny.params),
  ):
    with pytest.raises(ValueError, match="_do_init=False"):
      use()
  shapes = jax.tree.map(lambda leaf: leaf.shape, model.params_shape_tree)
  assert shapes == jax.tree.map(lambda leaf: leaf.shape, tiny.params)
  assert ("enc_to_dec_proj", "kernel") not in model.required_params
  output = model(batch[0], decoder_input_ids=batch[1], params=tiny.params)
  wanted = tiny(batch[0], decoder_input_ids=batch[1])
  _equal(output, wanted)


def test_the_seed_is_the_parameters(tiny, tiny_config):
  again = FlaxEncoderDecoderModel(tiny_config, seed=0)
  _equal(again.params, tiny.params)
  other = tiny.init_weights(jax.random.PRNGKey(1), ((1, 1), (1, 1)))
  table = other["encoder"]["embeddings"]["tokens"]["embedding"]
  held = tiny.params["encoder"]["embeddings"]["tokens"]["embedding"]
  assert not np.array_equal(table, held)
  _equal(other, tiny.init_weights(jax.random.key(1)))


def test_init_weights_fills_only_what_is_missing(tiny):
  part = {"encoder": tiny.params["encoder"]}
  filled = tiny.init_weights(jax.random.key(5), params=part)
  _equal(filled["encoder"], tiny.params["encoder"])
  _equal(filled["decoder"], tiny.init_weights(jax.random.key(5))["decoder"])


def test_params_are_checked_when_set(tiny):
  params = copy.copy(tiny.params)
  tiny.params = flax.core.freeze(params)
  assert isinstance(tiny.params, dict)
  with pytest.raises(ValueError, match="lack decoder/embeddings"):
    tiny.params = {"encoder": params["encoder"]}
  with pytest.raises(ValueError, match="hold the unknown extra"):
    tiny.params = {**params, "extra": jnp.zeros(2)}
  encoder = {**params["encoder"], "pooler": {"kernel": 0, "bias": 0}}
  encoder["pooler"] = jax.tree.map(
    lambda leaf: leaf[..., :3], params["encoder"]["pooler"]
  )
  with pytest.raises(ValueError, match=r"encoder/pooler/\w+ of shape"):
    tiny.params = {**params, "encoder": encoder}


def test_checkpointing_is_in_the_program(tiny, batch):
  tiny.config.pad_token_id = 0

  def program():
    def loss(params):
      return tiny(batch[0], labels=batch[1], params=params).loss

    return str(jax.make_jaxpr(jax.grad(loss))(tiny.params))

  assert "prevent_cse" not in program()
  tiny.enable_gradient_checkpointing()
  assert "prevent_cse" in program()


def test_float16_is_refused_for_training(tiny_config, tiny, batch):
  model = FlaxEncoderDecoderModel(
    tiny_config, dtype=jnp.float16, _do_init=False
  )
  with pytest.raises(ValueError, match="float16 is for inference"):
    model(
      batch[0],
      decoder_input_ids=batch[1],
      params=tiny.params,
      train=True,
      dropout_rng=jax.random.key(0),
    )
  with pytest.raises(ValueError, match="float16 is for inference"):
    tiny(
      batch[0],
      decoder_input_ids=batch[1],
      params=tiny.to_fp16(tiny.params),
      train=True,
      dropout_rng=jax.random.key(0),
    )


def test_special_tokens_follow_the_order(tiny, batch):
  assert tiny.special_tokens.start == 3
  assert "bos_token_id" in tiny.special_tokens.where["start"]
  tiny.generation_config.decoder_start_token_id = 6
  assert tiny.special_tokens.start == 6
  # Set after loading, the config wins over the file of generation.
  tiny.config.decoder_start_token_id = 7
  assert tiny.special_tokens.where["start"] == "model.config"
  found = tiny.generate(batch[0], max_length=3).sequences
  assert (found[:, 0] == 7).all()
  found = tiny.generate(
    batch[0], max_length=3, decoder_start_token_id=8
  ).sequences
  assert (found[:, 0] == 8).all()


def test_an_id_is_of_the_file_that_says_it(tiny, tmp_path):
  """What the generation config merely repeats is not its own."""
  assert tiny.special_tokens.where["end"] == "the decoder's config"
  tiny.config.decoder.eos_token_id = 9
  assert tiny.special_tokens.end == (9,)
  tiny.generation_config.eos_token_id = 8
  assert tiny.special_tokens.end == (8,)
  tiny.save_pretrained(tmp_path)
  again = FlaxEncoderDecoderModel.from_pretrained(tmp_path)
  assert again.special_tokens.end == (8,)
  assert again.special_tokens.where["end"] == "model.generation_config"


def test_a_missing_token_is_named(tiny, batch):
  tiny.generation_config.bos_token_id = None
  tiny.config.decoder.bos_token_id = None
  with pytest.raises(ValueError, match=r"start token.*model\.config\.decoder_"):
    tiny.generate(batch[0])
  with pytest.raises(ValueError, match="start token"):
    tiny(batch[0], labels=batch[1])
  tiny.generation_config.eos_token_id = None
  tiny.config.decoder.eos_token_id = None
  with pytest.raises(ValueError, match=r"end token.*model\.config\.eos_token"):
    tiny.generate(batch[0], decoder_start_token_id=3)


def test_an_option_on_the_config_is_not_ignored(tiny, batch):
  tiny.config.num_beams = 4
  with pytest.raises(ValueError, match=r"model\.config\.num_beams=4 was set"):
    tiny.generate(batch[0], max_length=4)


def test_new_weights_are_decoded_with(tiny, batch):
  before = tiny.generate(batch[0], max_length=9).sequences
  # Written into the nested dict, as old scripts did.
  tiny.params = jax.tree.map(lambda leaf: leaf, tiny.params)
  tiny.params["decoder"] = tiny.init_weights(jax.random.key(9))["decoder"]
  after = tiny.generate(batch[0], max_length=9).sequences
  assert not np.array_equal(before, after)


def test_parameters_of_numpy_cannot_change_unseen(tiny, batch):
  held = jax.tree.map(np.array, tiny.params)
  tiny.params = held
  before = tiny.generate(batch[0], max_length=9).sequences
  logits = tiny(batch[0], decoder_input_ids=batch[1]).logits
  held["decoder"]["embeddings"]["tokens"]["embedding"][:] = 1.0
  np.testing.assert_array_equal(
    tiny(batch[0], decoder_input_ids=batch[1]).logits, logits
  )
  np.testing.assert_array_equal(
    tiny.generate(batch[0], max_length=9).sequences, before
  )
  # Those of a caller are his, and are read at each call.
  held["decoder"]["embeddings"]["tokens"]["embedding"][7] = 9.0
  other = tiny.generate(batch[0], max_length=9, params=held).sequences
  held["decoder"]["embeddings"]["tokens"]["embedding"][:] = np.asarray(
    tiny.params["decoder"]["embeddings"]["tokens"]["embedding"]
  )
  again = tiny.generate(batch[0], max_length=9, params=held).sequences
  assert not np.array_equal(other, again)
  np.testing.assert_array_equal(again, before)


@pytest.mark.parametrize(
  ("side", "name"),
  [
    ("encoder", "is_decoder"),
    ("decoder", "is_decoder"),
    ("decoder", "add_cross_attention"),
  ],
)
def test_a_config_must_say_what_is_built(tiny_config, side, name):
  part = getattr(tiny_config, side)
  setattr(part, name, not getattr(part, name))
  with pytest.raises(ValueError, match=f"{side}: {name} is .* must be"):
    FlaxEncoderDecoderModel(tiny_config, _do_init=False)


def test_the_config_must_be_a_pairs(tiny_config):
  with pytest.raises(ValueError, match="pass an EncoderDecoderConfig"):
    FlaxEncoderDecoderModel(tiny_config.encoder)
  tiny_config.tie_encoder_decoder = True
  with pytest.raises(ValueError, match=r"share='all'.*name \(bert, gpt2\)"):
    FlaxEncoderDecoderModel(tiny_config)
