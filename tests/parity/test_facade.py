"""FlaxEncoderDecoderModel against PyTorch, with what each fills in itself."""

import random

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from encdec import FlaxEncoderDecoderModel

# PyTorch's advice on its own default length, which is compared here.
pytestmark = pytest.mark.filterwarnings("ignore:Using the model-agnostic")
START, END, PAD = 3, 4, 1
PAIRS = ("bert-gpt2", "roberta-roberta", "albert-electra", "bert-bart")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  """Gives a test every pair, or two by the seed at reduced counts."""
  if "both" not in metafunc.fixturenames:
    return
  # The tests draw alike: a pair is made, and compiled, for all of them.
  names = list(PAIRS)
  if not metafunc.config.option.full:
    names = random.Random(metafunc.config.option.seed).sample(names, 2)
  metafunc.parametrize("both", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def both(request, pairs, tmp_path_factory):
  """The same model twice: PyTorch's and the facade, loaded from its folder."""
  torch_model = pairs(request.param, raise_end=2.0).torch_model
  config = torch_model.generation_config
  config.decoder_start_token_id, config.pad_token_id = START, PAD
  config.eos_token_id = END
  torch_model.config.decoder_start_token_id = START
  torch_model.config.pad_token_id = PAD
  folder = tmp_path_factory.mktemp(request.param)
  torch_model.save_pretrained(folder)
  return torch_model, FlaxEncoderDecoderModel.from_pretrained(folder)


@pytest.fixture
def inputs(both, make_inputs):
  return make_inputs(both[1].module.config, "left")


def _t(array):
  return torch.tensor(np.asarray(array), dtype=torch.long)


def _run(model, **kwargs):
  with torch.no_grad():
    return model(**{k: _t(v) for k, v in kwargs.items()})


def test_ids_alone_mean_ones_for_masks(both, inputs, assert_close):
  # The ids hold padding: RoBERTa's positions come from it, no mask does.
  kwargs = {
    "input_ids": inputs.tokens,
    "decoder_input_ids": inputs.decoder_tokens,
  }
  theirs, ours = _run(both[0], **kwargs), both[1](**kwargs)
  assert_close(ours.logits, theirs.logits)
  assert ours.loss is None and ours[0] is ours.logits


def test_masks_padding_and_every_output(both, inputs, assert_close):
  kwargs = {
    "input_ids": inputs.tokens,
    "attention_mask": inputs.mask,
    "decoder_input_ids": inputs.decoder_tokens,
    "decoder_attention_mask": inputs.decoder_mask,
  }
  with torch.no_grad():
    theirs = both[0](
      **{k: _t(v) for k, v in kwargs.items()},
      output_attentions=True,
      output_hidden_states=True,
    )
  ours = both[1](**kwargs, output_attentions=True, output_hidden_states=True)
  source, target = inputs.mask == 1, inputs.decoder_mask == 1
  assert_close(ours.logits, theirs.logits, target, "logits")
  for name, mask in (("encoder", source), ("decoder", target)):
    hidden = f"{name}_hidden_states"
    assert len(ours[hidden]) == len(theirs[hidden])
    for a, b in zip(ours[hidden], theirs[hidden], strict=True):
      assert_close(a, b, mask, hidden)
  for name, mask in (
    ("encoder_attentions", source),
    ("decoder_attentions", target),
    ("cross_attentions", target),
  ):
    for a, b in zip(ours[name], theirs[name], strict=True):
      a, b = np.moveaxis(np.asarray(a), 1, 2), b.transpose(1, 2)
      assert_close(a, b, mask, name)
  assert_close(
    ours.encoder_last_hidden_state,
    theirs.encoder_last_hidden_state,
    source,
    "encoder_last_hidden_state",
  )


def test_labels_are_shifted_and_give_the_loss(both, inputs, assert_close):
  labels = np.where(inputs.decoder_mask == 1, inputs.decoder_tokens, -100)
  # A real label that equals the padding id is masked as an input.
  labels[0, 2] = PAD
  kwargs = {
    "input_ids": inputs.tokens,
    "attention_mask": inputs.mask,
    "labels": labels,
  }
  with pytest.warns(FutureWarning):
    theirs = _run(both[0], **kwargs)
  ours = both[1](**kwargs)
  assert_close(ours.loss, theirs.loss)
  assert_close(ours.logits[0], theirs.logits[0])
  assert ours[0] is ours.loss and ours[1] is ours.logits
  as_tuple = both[1](**kwargs, return_dict=False)
  assert as_tuple[0] == ours.loss and as_tuple[1].shape == ours.logits.shape
  # With ids of its own, the loss takes the labels as they are.
  kwargs["decoder_input_ids"] = inputs.decoder_tokens
  with pytest.warns(FutureWarning):
    theirs = _run(both[0], **kwargs)
  assert_close(both[1](**kwargs).loss, theirs.loss)


def test_given_positions_are_rows_of_the_table(both, inputs, assert_close):
  length = inputs.tokens.shape[1]
  positions = np.arange(length)[::-1][None] + 2
  kwargs = {
    "input_ids": inputs.tokens,
    "decoder_input_ids": inputs.decoder_tokens,
    "position_ids": positions,
  }
  theirs, ours = _run(both[0], **kwargs), both[1](**kwargs)
  assert_close(ours.logits, theirs.logits)
  without = both[1](inputs.tokens, decoder_input_ids=inputs.decoder_tokens)
  assert np.abs(ours.logits - without.logits).max() > 0.01


@pytest.mark.sample(1)
def test_embeddings_in_place_of_ids(both, inputs, assert_close):
  torch_model, model = both
  embeds = {
    "inputs_embeds": torch_model.encoder.get_input_embeddings(),
    "decoder_inputs_embeds": torch_model.decoder.get_input_embeddings(),
  }
  ids = (inputs.tokens, inputs.decoder_tokens)
  with torch.no_grad():
    given = {
      name: table(_t(tokens))
      for (name, table), tokens in zip(embeds.items(), ids, strict=True)
    }
    theirs = torch_model(**given)
  ours = model(**{name: jnp.asarray(a.numpy()) for name, a in given.items()})
  assert_close(ours.logits, theirs.logits)


def test_encode_then_decode_is_the_whole_call(both, inputs):
  model = both[1]
  whole = model(
    inputs.tokens, inputs.mask, inputs.decoder_tokens, inputs.decoder_mask
  )
  encoded = model.encode(inputs.tokens, inputs.mask)
  decoded = model.decode(
    inputs.decoder_tokens, encoded, inputs.mask, inputs.decoder_mask
  )
  np.testing.assert_array_equal(decoded.logits, whole.logits)
  again = model(
    attention_mask=inputs.mask,
    decoder_input_ids=inputs.decoder_tokens,
    decoder_attention_mask=inputs.decoder_mask,
    encoder_outputs=encoded,
  )
  np.testing.assert_array_equal(again.logits, whole.logits)


@pytest.mark.sample(1)
def test_token_by_token_is_the_whole_call(both, inputs, assert_close):
  model = both[1]
  ids = np.maximum(inputs.decoder_tokens, PAD + 1)
  encoded = model.encode(inputs.tokens, inputs.mask)
  whole = model.decode(ids, encoded, inputs.mask, inputs.decoder_mask)
  cache = model.init_cache(*ids.shape, encoded)
  first = model.decode(
    ids[:, :3], encoded, inputs.mask, inputs.decoder_mask, None, cache
  )
  logits, cache = [first.logits], first.past_key_values
  for at in range(3, ids.shape[1]):
    step = model.decode(
      ids[:, at : at + 1], encoded, inputs.mask, past_key_values=cache
    )
    logits.append(step.logits)
    cache = step.past_key_values
  joined = np.concatenate(logits, axis=1)
  assert_close(joined, whole.logits, inputs.decoder_mask == 1)


OPTIONS = (
  {},
  {"max_length": 9},
  {"max_new_tokens": 4},
  {"max_length": 30, "min_length": 12},
  {"max_new_tokens": 9, "eos_token_id": [END, 7], "min_new_tokens": 2},
)


@pytest.mark.sample(1)
def test_greedy_tokens_are_pytorchs(both, inputs):
  torch_model, model = both
  lengths = set()
  for options in OPTIONS:
    with torch.no_grad():
      theirs = torch_model.generate(
        _t(inputs.tokens), attention_mask=_t(inputs.mask), **options
      ).numpy()
    ours = model.generate(
      inputs.tokens, attention_mask=inputs.mask, **options
    ).sequences
    np.testing.assert_array_equal(ours, theirs, err_msg=str(options))
    lengths |= set((theirs == END).argmax(axis=1))
  assert len(lengths) > 2, "rows should end at several places"


def test_generate_without_a_mask_attends_to_padding(both, inputs):
  torch_model, model = both
  with torch.no_grad():
    theirs = torch_model.generate(_t(inputs.tokens), max_length=9).numpy()
  ours = model.generate(inputs.tokens, max_length=9).sequences
  np.testing.assert_array_equal(ours, theirs)


@pytest.mark.sample(1)
@pytest.mark.parametrize("begins", [True, False])
def test_prompts(both, inputs, begins):
  torch_model, model = both
  prompt = np.array([[START, 9, 8], [START, 7, 9], [5, 6, 7], [6, 6, 8]])
  if not begins:
    prompt = prompt[:, 1:]
  mask = np.ones_like(prompt)
  kwargs = {
    "attention_mask": inputs.mask,
    "decoder_input_ids": prompt,
    "decoder_attention_mask": mask,
  }
  with torch.no_grad():
    theirs = torch_model.generate(
      _t(inputs.tokens), **{k: _t(v) for k, v in kwargs.items()}
    ).numpy()
  ours = model.generate(inputs.tokens, **kwargs).sequences
  np.testing.assert_array_equal(ours, theirs)
  assert ours.shape[1] <= 20 + 3
  assert (ours[:, 0] == START).all() or begins
