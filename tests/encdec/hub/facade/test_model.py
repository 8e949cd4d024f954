"""The facade: parameters, calls, options and refusals."""

import copy
import dataclasses
import pickle

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import FlaxEncoderDecoderModel, shift_tokens_right
from encdec.generation import programs
from encdec.hub import (
  LoadingError,
  compose_config,
  from_flax457,
  load_side_config,
  to_flax457,
)
from encdec.layers import kv_cache


def _equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


# ---- parameters -----------------------------------------------------------


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


def test_casts_reach_floats_that_the_mask_names(tiny):
  half = tiny.to_bf16(tiny.params)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(half)} == {"bfloat16"}
  mask = jax.tree.map(lambda leaf: leaf.ndim > 1, tiny.params)
  mixed = tiny.to_fp16(tiny.params, mask)
  for leaf, held in zip(
    jax.tree.leaves(mixed), jax.tree.leaves(tiny.params), strict=True
  ):
    assert leaf.dtype == (jnp.float16 if held.ndim > 1 else jnp.float32)
  assert tiny.to_fp32(half)["encoder"]["pooler"]["bias"].dtype == jnp.float32


# ---- the old tree ---------------------------------------------------------


def test_the_old_tree_and_back(tiny):
  old = to_flax457(tiny.params, tiny.config)
  # safetensors writes a view's bytes as they lie in memory.
  assert all(leaf.flags.c_contiguous for leaf in jax.tree.leaves(old))
  layer = old["encoder"]["encoder"]["layer"]["0"]
  ours = tiny.params["encoder"]["layers"]
  np.testing.assert_array_equal(
    layer["intermediate"]["dense"]["kernel"], ours["mlp"]["up"]["kernel"][0]
  )
  query = ours["self_attention"]["query"]["kernel"][0]
  np.testing.assert_array_equal(
    layer["attention"]["self"]["query"]["kernel"], query.reshape(16, 16)
  )
  block = old["decoder"]["transformer"]["h"]["0"]
  # GPT-2's dense layers are stored [out, in] there, three in one.
  assert block["attn"]["c_attn"]["kernel"].shape == (48, 16)
  assert set(block) == {
    "ln_1", "attn", "ln_2", "crossattention", "ln_cross_attn", "mlp"
  }  # fmt: skip
  assert set(block["ln_1"]) == {"scale", "bias"}
  assert set(old["decoder"]["transformer"]["wte"]) == {"embedding"}
  assert "lm_head" not in old["decoder"]
  _equal(from_flax457(old, tiny.config), tiny.params)
  _equal(from_flax457(flax.core.freeze(old), tiny.config), tiny.params)
  del block["ln_1"]["scale"]
  with pytest.raises(LoadingError, match=r"h\.0\.ln_1\.weight"):
    from_flax457(old, tiny.config)


@pytest.mark.parametrize("arch", ["electra", "camembert"])
@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_a_pair_that_had_no_old_tree_is_refused(side, arch):
  sides = {"encoder": "bert", "decoder": "gpt2"} | {side: arch}
  config = compose_config(
    *(load_side_config(f"{arch}:tiny") for arch in sides.values())
  )
  with pytest.raises(ValueError, match=rf"{arch}: transformers 4\.57 built"):
    to_flax457({}, config)


def test_shifted_labels_are_decoder_inputs(tiny, batch):
  labels = np.array([[5, 6, 7, -100], [8, -100, -100, -100]], np.int32)
  ids = shift_tokens_right(labels, 1, 3)
  np.testing.assert_array_equal(ids, [[3, 5, 6, 7], [3, 8, 1, 1]])
  given = tiny(batch[0], decoder_input_ids=ids, decoder_attention_mask=ids != 1)
  tiny.config.pad_token_id, tiny.config.decoder_start_token_id = 1, 3
  np.testing.assert_array_equal(
    tiny(batch[0], labels=labels).logits, given.logits
  )


def test_an_old_tree_is_refused_and_its_converter_named(tiny, batch):
  old = to_flax457(tiny.params, tiny.config)
  with pytest.raises(ValueError, match="from_flax457"):
    tiny.params = old
  with pytest.raises(ValueError, match="from_flax457"):
    tiny(batch[0], decoder_input_ids=batch[1], params=old)


# ---- calls ----------------------------------------------------------------


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


def test_the_first_loss_does_not_see_the_labels(tiny, batch):
  """Also where the start token and padding are one id, as GPT-2's are."""
  tiny.config.decoder_start_token_id = tiny.config.pad_token_id = 4
  labels = np.array(batch[1])
  first = tiny(batch[0], labels=labels).logits[:, 0]
  labels[:, 1:] = (labels[:, 1:] + 1) % 30 + 5
  other = tiny(batch[0], labels=labels).logits
  np.testing.assert_array_equal(other[:, 0], first)


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"input_ids": np.zeros((2, 41), np.int32)}, "input_ids is 41 tokens long"),
    ({"input_ids": np.full((2, 3), 37)}, "input_ids holds ids from 37 to 37"),
    ({"decoder_input_ids": np.full((2, 3), -1)}, "decoder_input_ids holds ids"),
    ({"input_ids": np.zeros((2,), np.int32)}, r"shape \[batch, length\]"),
    ({"input_ids": np.zeros((2, 3))}, "must be whole numbers"),
    ({"input_ids": None}, "pass either input_ids or its embeddings"),
    (
      {"input_ids": None, "inputs_embeds": np.zeros((2, 6, 5))},
      r"in place of input_ids have shape \[2, 6, 5\]",
    ),
    (
      {"token_type_ids": np.zeros((2, 5), int)},
      r"token types of input_ids have shape \[2, 5\]; it must be \[2, 6\]",
    ),
    (
      {"position_ids": np.zeros((1, 5), int)},
      r"position ids of input_ids have shape \[2, 5\]; it must be \[2, 6\]",
    ),
    (
      {"encoder_outputs": (np.zeros((3, 6, 16)),)},
      "the source has 3 rows and the target 2",
    ),
    (
      {"encoder_outputs": (np.zeros((2, 6, 3)),)},
      r"encoder_outputs hold states of shape \[2, 6, 3\]",
    ),
    ({"decoder_input_ids": None}, "pass either decoder_input_ids"),
    ({"attention_mask": np.ones((2, 5))}, r"mask of input_ids has shape"),
    ({"attention_mask": np.ones((2, 6, 6), int)}, "call encode"),
    ({"position_ids": np.full((1, 6), 40)}, "position ids of input_ids holds"),
    ({"labels": np.full((2, 4), 41)}, "labels hold ids from 41"),
    ({"labels": np.full((2, 5), 7)}, "they must agree"),
    ({"use_cache": True, "output_attentions": True}, "leave out use_cache"),
  ],
)
def test_bad_input_is_named(tiny, batch, kwargs, message):
  given = {"input_ids": batch[0], "decoder_input_ids": batch[1], **kwargs}
  with pytest.raises(ValueError, match=message):
    tiny(**given)


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


# ---- special tokens and generation ----------------------------------------


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


@pytest.mark.parametrize(
  ("options", "error", "message"),
  [
    ({"num_beams": 2, "num_return_sequences": 3}, ValueError, "exceeds num_b"),
    ({"num_return_sequences": 2}, ValueError, "greedy search finds one"),
    ({"num_beams": 50}, ValueError, "num_beams=50 exceeds the vocabulary"),
    ({"num_beams": 0}, ValueError, "num_beams=0"),
    ({"num_beams": 3, "num_beam_groups": 2}, ValueError, "no multiple of"),
    ({"diversity_penalty": 0.5}, ValueError, "needs num_beam_groups"),
    ({"early_stopping": "often"}, ValueError, "early_stopping='often'"),
    ({"do_sample": True}, ValueError, "prng_key"),
    ({"penalty_alpha": 0.6}, ValueError, "penalty_alpha=0.6 is not supported"),
    ({"stop_strings": ["."]}, ValueError, "stop_strings"),
    ({"guidance_scale": 2.0}, ValueError, "guidance_scale=2.0"),
    ({"repetition_penalty": 0.0}, ValueError, "repetition_penalty=0.0 must"),
    ({"repetition_penalty": np.nan}, ValueError, "repetition_penalty=nan must"),
    ({"length_penalty": "a"}, ValueError, "length_penalty='a' must be a num"),
    ({"diversity_penalty": np.nan}, ValueError, "diversity_penalty=nan must"),
    ({"no_repeat_ngram_size": True}, ValueError, "size=True must be a whole"),
    (
      {"exponential_decay_length_penalty": (2.5, 1.1)},
      ValueError,
      r"penalty\[0\]=2.5 must be a whole",
    ),
    ({"no_repeat_ngram_size": -1}, ValueError, "no_repeat_ngram_size=-1"),
    ({"forced_bos_token_id": 41}, ValueError, "forced_bos_token_id holds 41"),
    ({"forced_bos_token_id": [5, 6]}, ValueError, "must be one id"),
    ({"bad_words_ids": [5]}, ValueError, "bad_words_ids"),
    ({"bad_words_ids": [[5, 99]]}, ValueError, "bad_words_ids holds 99"),
    ({"sequence_bias": {5: 1.0}}, ValueError, "sequence_bias"),
    ({"suppress_tokens": ["a"]}, ValueError, "suppress_tokens"),
    ({"encoder_no_repeat_ngram_size": 2}, ValueError, "one vocabulary"),
    ({"logits_processor": 3}, TypeError, "logits_processor=3 is no function"),
    ({"word_starts": [True]}, ValueError, "one bool for each"),
    ({"trace": False}, ValueError, "jax.disable_jit"),
    ({"scoring": "flax", "num_beams": 2}, ValueError, "scoring='flax' is not"),
    ({"max_lenght": 5}, TypeError, "no option 'max_lenght'"),
    ({"seed": 0}, TypeError, "seed=0: .*prng_key"),
    ({"generation_config": 7}, TypeError, "attention_mask= or"),
    ({"max_new_tokens": 0}, ValueError, "max_new_tokens=0 must be at least 1"),
    ({"max_new_tokens": 2.9}, ValueError, "max_new_tokens=2.9 must be a whole"),
    ({"num_beams": "2"}, ValueError, "num_beams='2' must be a whole number"),
    ({"num_beams": 2, "length_penalty": 99.0}, ValueError, "length_penalty=99"),
    (
      {"decoder_input_ids": [[3, 5]]},
      ValueError,
      r"decoder_input_ids of shape \[1, 2\]",
    ),
    (
      {"decoder_input_ids": np.zeros((2, 0), int)},
      ValueError,
      "at least one token",
    ),
    ({"attention_mask": [[1] * 6, [0] * 6]}, ValueError, "source 1 is empty"),
    ({"decoder_attention_mask": [[1, 1]] * 2}, ValueError, "is of a prompt"),
    ({"max_length": 1}, ValueError, "max_length allows 1 tokens"),
    ({"max_length": 41}, ValueError, "table ends at 40"),
    ({"max_length": 5, "min_length": 6}, ValueError, "min_length=6 exceeds"),
    ({"eos_token_id": 41}, ValueError, "end token 41 is outside"),
  ],
)
def test_options_that_cannot_be_honoured_are_refused(
  tiny, batch, options, error, message
):
  with pytest.raises(error, match=message):
    tiny.generate(batch[0], **options)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"temperature": 0.7}, r"temperature=0\.7 does nothing without do_sample"),
    ({"num_beams": 2, "top_k": 5}, "top_k=5 does nothing without do_sample"),
    ({"length_penalty": 0.0}, "does nothing without num_beams of at least 2"),
    ({"scoring": "gnmt"}, "scoring='gnmt' does nothing without num_beams"),
  ],
)
def test_options_that_their_mode_does_not_heed_are_warned_of(
  tiny, batch, options, message
):
  with pytest.warns(UserWarning, match=message):
    tiny.generate(batch[0], max_length=4, **options)
  # In a file they are for those who use that mode.
  if "scoring" in options:
    return
  for name, value in options.items():
    setattr(tiny.generation_config, name, value)
  tiny.generate(batch[0], max_length=4)


def test_counts_may_be_numpys(tiny, batch):
  """As lengths may."""
  for options in ({"no_repeat_ngram_size": 2}, {"max_length": 4}):
    plain = tiny.generate(batch[0], **options).sequences
    counts = {name: np.int64(value) for name, value in options.items()}
    found = tiny.generate(batch[0], **counts).sequences
    np.testing.assert_array_equal(found, plain)


def test_a_files_option_counts_and_can_be_overridden(tiny, batch):
  tiny.generation_config.num_beams = 4
  tiny.generation_config.penalty_alpha = 0.6
  with pytest.raises(ValueError, match=r"penalty_alpha=0\.6"):
    tiny.generate(batch[0], max_length=4)
  found = tiny.generate(
    batch[0], max_length=4, penalty_alpha=0.0, output_scores=True
  )
  assert found.scores[0].shape[0] == 4 * len(batch[0])
  found = tiny.generate(
    batch[0], max_length=4, num_beams=1, penalty_alpha=0.0, output_scores=True
  )
  assert found.scores[0].shape[0] == len(batch[0])


def test_an_option_on_the_config_is_not_ignored(tiny, batch):
  tiny.config.num_beams = 4
  with pytest.raises(ValueError, match=r"model\.config\.num_beams=4 was set"):
    tiny.generate(batch[0], max_length=4)


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


def test_generation_compiles_once_a_bucket(tiny, batch):
  tiny.generate(batch[0], max_length=5, min_length=3)
  before = programs.run._cache_size()
  for length, source in ((9, batch[0]), (33, batch[0][:, :3])):
    tiny.generate(source, max_length=length, min_length=2)
  assert programs.run._cache_size() == before
  tiny.generate(batch[0], max_length=34, min_length=2)
  assert programs.run._cache_size() == before + 1


@pytest.mark.parametrize("beams", [1, 2])
def test_a_new_shape_in_a_bucket_compiles_nothing(tiny, caplog, beams):
  """What the host gives is padded and cut there, prompts included."""
  ids = np.random.default_rng(0).integers(5, 30, (8, 9))
  prompt = np.full((8, 1), 3)

  def compiled(rows, length, tokens, **more):
    source = ids[:rows, :length]
    caplog.clear()
    with jax.log_compiles():
      found = tiny.generate(
        source.tolist(),
        attention_mask=np.ones_like(source),
        num_beams=beams,
        max_length=tokens,
        min_length=tokens,
        **more,
      )
    assert isinstance(found.sequences, jax.Array)
    assert found.sequences.shape == (rows, tokens)
    return [r.message for r in caplog.records if "Finished XLA" in r.message]

  compiled(8, 9, 9)
  assert not compiled(7, 8, 9)
  assert not compiled(5, 4, 6)
  assert not compiled(6, 8, 7, decoder_input_ids=prompt[:6])
  # The control: another bucket.
  assert compiled(8, 9, 40)


@pytest.mark.parametrize(
  "options",
  [
    {},
    {"num_beams": 3, "num_return_sequences": 2},
    {"do_sample": True, "num_return_sequences": 2, "top_k": 0},
  ],
  ids=["greedy", "beams", "samples"],
)
def test_rows_have_buckets(tiny, options):
  """Seven sources are searched by the program of eight, and are seven."""
  ids = jax.random.randint(jax.random.key(3), (8, 5), 5, 30)
  options = options | {
    "max_length": 6,
    "output_scores": True,
    "output_logits": True,
    "output_attentions": True,
  }
  keys = jax.random.split(jax.random.key(0), 8)
  sampled = "do_sample" in options
  whole = tiny.generate(ids, prng_key=keys if sampled else None, **options)
  before = programs.run._cache_size()
  part = tiny.generate(
    ids[:7], prng_key=keys[:7] if sampled else None, **options
  )
  assert programs.run._cache_size() == before
  texts, steps = 7 * options.get("num_return_sequences", 1), len(part.scores)
  beams = part.scores[0].shape[0]
  width = part.sequences.shape[1]
  np.testing.assert_array_equal(part.sequences, whole.sequences[:texts, :width])
  assert part.cross_attentions[0].shape[0] == texts
  for name in ("scores", "logits"):
    for mine, all_of in zip(
      getattr(part, name), getattr(whole, name)[:steps], strict=True
    ):
      np.testing.assert_allclose(mine, all_of[:beams], atol=1e-5)
  if sampled:
    with pytest.raises(ValueError, match="keys for 7 rows"):
      tiny.generate(ids[:7], prng_key=keys, **options)


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


def test_a_mask_for_each_query_is_not_for_generation(tiny, batch):
  encoded = tiny.encode(batch[0])
  length = batch[0].shape[1]
  with pytest.raises(ValueError, match=r"must be \[batch, length\]"):
    tiny.generate(
      encoder_outputs=encoded,
      attention_mask=np.ones((2, length, length), int),
    )


@pytest.mark.parametrize(
  ("states", "given", "message"),
  [
    ((2, 6, 16), {"attention_mask": [[1] * 6, [0] * 6]}, "source 1 is empty"),
    ((2, 6, 16), {"input_ids": np.ones((2, 4), int)}, r"it must be \[2, 6\]"),
    ((2, 6, 16), {"input_ids": np.ones((1, 6), int)}, r"it must be \[2, 6\]"),
    ((0, 6, 16), {}, "hold no source"),
    ((2, 0, 16), {}, "hold no source"),
    ((6, 16), {}, r"must be \[batch, length, 16\]"),
    ((2, 6, 7), {}, r"must be \[batch, length, 16\]"),
  ],
)
def test_encoder_outputs_are_checked_as_ids_are(tiny, states, given, message):
  with pytest.raises(ValueError, match=message):
    tiny.generate(encoder_outputs=(jnp.ones(states),), **given)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_no_source_is_refused(tiny, shape):
  with pytest.raises(ValueError, match="hold no source"):
    tiny.generate(np.zeros(shape, np.int32))


def test_the_config_must_be_a_pairs(tiny_config):
  with pytest.raises(ValueError, match="pass an EncoderDecoderConfig"):
    FlaxEncoderDecoderModel(tiny_config.encoder)
  tiny_config.tie_encoder_decoder = True
  with pytest.raises(ValueError, match=r"share='all'.*name \(bert, gpt2\)"):
    FlaxEncoderDecoderModel(tiny_config)


def test_outputs_can_be_pickled(tiny, batch):
  output = tiny(batch[0], decoder_input_ids=batch[1])
  again = pickle.loads(pickle.dumps(output))
  np.testing.assert_array_equal(again.logits, output.logits)
