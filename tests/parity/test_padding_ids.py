"""Ids that take no position, as PyTorch counts without a cache.

RoBERTa counts positions over the ids that are not its padding id, wherever
that one stands: it may start a target, or be a token of a text. PyTorch's own
cache counts it all the same, so the referee runs without one.
"""

import copy
import functools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.roberta.modeling_roberta import RobertaEmbeddings

from data.collate import collate
from data.examples import Tokens, make_example
from encdec import FlaxEncoderDecoderModel
from encdec.generation.decode_params import unstack
from encdec.generation.search.options import SearchOptions
from encdec.generation.streaming import generate_stream
from encdec.masks import last_positions, token_positions
from encdec.sharing import expand
from train import losses, step

END, PAD = 4, 1
# A seed, and by how much the end and the padding id are raised: texts end, and
# go on after padding ids, at several places.
PAIRS = {
  "roberta-roberta": (0, 2.5, 1.0),
  "xlmr-camembert": (0, 0.0, 1.5),
  "camembert-xlmr": (3, 1.5, 1.0),
  "prelayernorm-prelayernorm": (0, 2.5, 2.0),
}
LONGEST = 12


def _t(array):
  return torch.tensor(np.asarray(array), dtype=torch.long)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  """Gives a test every pair, or one by the seed at reduced counts."""
  if "name" not in metafunc.fixturenames:
    return
  # The tests draw alike: a pair is made, and compiled, for all of them.
  names = list(PAIRS)
  if not metafunc.config.option.full:
    names = random.Random(metafunc.config.option.seed).sample(names, 1)
  metafunc.parametrize("name", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def name(request):
  return request.param


@pytest.fixture(scope="module")
def both(name, pairs, tmp_path_factory):
  """PyTorch's model, and the facade loaded from its folder."""
  seed, end, padding = PAIRS[name]
  model = copy.deepcopy(pairs(name, seed=seed).torch_model)
  with torch.no_grad():
    model.decoder.lm_head.bias[END] += end
    model.decoder.lm_head.bias[PAD] += padding
  for config in (model.generation_config, model.config):
    config.decoder_start_token_id, config.pad_token_id = PAD, PAD
    config.eos_token_id = END
  folder = tmp_path_factory.mktemp("pair")
  model.save_pretrained(folder)
  return model, FlaxEncoderDecoderModel.from_pretrained(folder)


@pytest.fixture
def inputs(both, make_inputs):
  """Left-padded sources with the padding id in the middle of a text too."""
  made = make_inputs(both[1].module.config, "left")
  made.tokens[:2, 5] = PAD
  return made


def _greedy(model, inputs, prompt, mask):
  """A loop over whole forward passes; a text ends with its first end token."""
  ids, ended = prompt, np.zeros(len(prompt), bool)
  while ids.shape[1] < LONGEST and not ended.all():
    more = ids.shape[1] - mask.shape[1]
    with torch.no_grad():
      logits = model(
        _t(inputs.tokens),
        attention_mask=_t(inputs.mask),
        decoder_input_ids=_t(ids),
        decoder_attention_mask=_t(np.pad(mask, ((0, 0), (0, more)), "edge")),
        use_cache=False,
      ).logits[:, -1]
    token = np.where(ended, PAD, logits.argmax(-1).numpy())
    ended |= token == END
    ids = np.concatenate([ids, token[:, None]], axis=1)
  return ids


def _holds_padding(sequences, prompt: int) -> bool:
  """Whether a text goes on after a padding id that it was given or wrote."""
  written = np.asarray(sequences)[:, prompt:]
  return bool(((written[:, :-1] == PAD) & (written[:, 1:] != PAD)).any())


@pytest.mark.sample(1)
def test_greedy_search_from_the_padding_id(both, inputs):
  torch_model, model = both
  start = np.full((4, 1), PAD)
  theirs = _greedy(torch_model, inputs, start, np.ones_like(start))
  assert _holds_padding(theirs, 1)
  ours = model.generate(
    inputs.tokens, attention_mask=inputs.mask, max_length=LONGEST
  )
  np.testing.assert_array_equal(ours.sequences, theirs)
  # The start token as a prompt is the same.
  again = model.generate(
    inputs.tokens,
    attention_mask=inputs.mask,
    decoder_input_ids=start,
    max_length=LONGEST,
  )
  np.testing.assert_array_equal(again.sequences, theirs)
  # Of states, also with the attentions of the whole pass.
  encoded = model.encode(inputs.tokens, inputs.mask)
  again = model.generate(
    encoder_outputs=encoded,
    attention_mask=inputs.mask,
    max_length=LONGEST,
    output_attentions=True,
    return_dict_in_generate=True,
  )
  np.testing.assert_array_equal(again.sequences, theirs)
  lengths = (np.cumsum(theirs == END, axis=1) == 0).sum(axis=1)
  with torch.no_grad():
    attentions = torch_model(
      _t(inputs.tokens),
      attention_mask=_t(inputs.mask),
      decoder_input_ids=_t(theirs),
      output_attentions=True,
      use_cache=False,
    ).decoder_attentions
  for ours, want in zip(again.decoder_attentions, attentions, strict=True):
    for a, b, length in zip(ours, want, lengths, strict=True):
      np.testing.assert_allclose(a[:, :length], b[:, :length], atol=1e-4)


@pytest.mark.sample(1)
@pytest.mark.parametrize("left", [0, 2])
def test_greedy_search_from_a_prompt_with_padding_ids(both, inputs, left):
  torch_model, model = both
  prompt = np.array([[PAD, 9, PAD, 8], [PAD, PAD, 7, 9], [PAD, 5, 6, PAD]])
  prompt = np.concatenate([prompt, [[PAD, 5, 6, 7]]])
  mask = np.ones_like(prompt)
  if left:
    mask[1, :left] = 0
  ours = model.generate(
    inputs.tokens,
    attention_mask=inputs.mask,
    decoder_input_ids=prompt,
    decoder_attention_mask=mask,
    max_length=LONGEST,
  )
  theirs = _greedy(torch_model, inputs, prompt, mask)
  np.testing.assert_array_equal(ours.sequences, theirs)


@pytest.mark.sample(1)
def test_beams_from_the_padding_id(both, inputs):
  torch_model, model = both
  options = {
    "max_length": LONGEST,
    "num_beams": 4,
    "num_return_sequences": 3,
    "length_penalty": 0.8,
  }
  with torch.no_grad():
    theirs = torch_model.generate(
      _t(inputs.tokens),
      attention_mask=_t(inputs.mask),
      use_cache=False,
      **options,
    ).numpy()
  assert _holds_padding(theirs, 1)
  ours = model.generate(inputs.tokens, attention_mask=inputs.mask, **options)
  np.testing.assert_array_equal(ours.sequences, theirs)


@pytest.mark.sample(1)
def test_step_by_step_is_the_whole_pass(both, inputs, assert_close):
  torch_model, model = both
  ids = inputs.decoder_tokens.copy()
  ids[:, 0] = ids[0, 3] = ids[2, 4] = PAD
  with torch.no_grad():
    theirs = torch_model(
      _t(inputs.tokens),
      attention_mask=_t(inputs.mask),
      decoder_input_ids=_t(ids),
      use_cache=False,
    ).logits
  encoded = model.encode(inputs.tokens, inputs.mask)
  whole = model.decode(ids, encoded, inputs.mask)
  assert_close(whole.logits, theirs)
  cache = model.init_cache(*ids.shape, encoded)
  logits = []
  for first, last in ((0, 1), (1, 4), (4, 5), (5, ids.shape[1])):
    out = model.decode(
      ids[:, first:last], encoded, inputs.mask, past_key_values=cache
    )
    cache = out.past_key_values
    logits.append(out.logits)
  assert_close(np.concatenate(logits, axis=1), theirs)


@pytest.mark.sample(1)
@pytest.mark.parametrize("beams", [1, 4])
def test_a_stream_from_the_padding_id(both, inputs, beams):
  """Rows that are refilled, each at a step of its own."""
  torch_model, model = both
  with torch.no_grad():
    theirs = torch_model.generate(
      _t(inputs.tokens),
      attention_mask=_t(inputs.mask),
      use_cache=False,
      max_length=LONGEST,
      num_beams=beams,
    ).numpy()
  module = model.module

  def place(rows):
    rows = [0 if row is None else row for row in rows]
    tokens = inputs.tokens[rows]
    return {
      "encoder_tokens": jnp.asarray(tokens),
      "encoder_segments": jnp.asarray(inputs.mask[rows]),
      "encoder_positions": jnp.asarray(token_positions(tokens, PAD)),
    }

  found = generate_stream(
    module,
    unstack(expand(model.params, module.config), module),
    [3, 0, 2, 1, 0, 3],
    place,
    options=SearchOptions(
      jnp.int32(LONGEST), jnp.int32(PAD), end_tokens=(END,), num_beams=beams
    ),
    start_token=PAD,
    cache_length=LONGEST,
    rows=2,
  )
  count = 0
  for row, texts in found:
    length = theirs.shape[1]
    np.testing.assert_array_equal(texts.tokens[0, :length], theirs[row])
    count += 1
  assert count == 6


@pytest.mark.parametrize("packed", [False, True])
def test_positions_are_one_rule(packed):
  rng = np.random.default_rng(0)
  tokens = rng.integers(0, 4, (3, 9)).astype(np.int32)
  index = None
  texts = [(row, slice(0, 9)) for row in range(3)]
  if packed:
    index = np.tile(np.concatenate([np.arange(4), np.arange(5)]), (3, 1))
    texts = [
      (row, part) for row in range(3) for part in (slice(4), slice(4, 9))
    ]
  found = token_positions(tokens, PAD, index)
  assert isinstance(found, np.ndarray) and found.dtype == np.int32
  on_device = token_positions(jnp.asarray(tokens), PAD, index)
  np.testing.assert_array_equal(on_device, found)
  for row, part in texts:
    ids = torch.tensor(tokens[row, part])[None]
    rows = RobertaEmbeddings.create_position_ids_from_input_ids(ids, PAD)
    np.testing.assert_array_equal(found[row, part], rows[0] - PAD - 1)
  if not packed:
    steps = [
      last_positions(jnp.asarray(tokens)[:, None], jnp.full((3,), length), PAD)[
        :, 0
      ]
      for length in range(1, 10)
    ]
    np.testing.assert_array_equal(np.stack(steps, axis=1), found)
  plain = token_positions(tokens, None, index)
  want = np.tile(np.arange(9), (3, 1)) if index is None else index
  np.testing.assert_array_equal(plain, want)


TEXTS = (
  ([9, PAD, 8, 7, PAD, 30], [5, PAD, PAD, 8]),
  ([PAD, PAD, 11], [6, 7]),
  ([21, 22, 23, 24], [PAD, 9, 9, 8, PAD]),
  ([12, 13], [14]),
)
TOKENS = Tokens(start=PAD, end=END, source_pad=PAD, target_pad=PAD)


def _examples():
  return [
    make_example(
      source, target, start_id=PAD, end_id=END,
      max_source_length=8, max_target_length=8,
    )
    for source, target in TEXTS
  ]  # fmt: skip


@pytest.mark.sample(1)
@pytest.mark.parametrize("packed", [False, True])
def test_a_batchs_loss_is_pytorchs(pairs, name, packed):
  """Of data's batches, which know nothing of the model."""
  ours = pairs(name)
  torch_model = ours.torch_model
  alone = collate(_examples(), shape=(8, 8), tokens=TOKENS)
  with torch.no_grad():
    logits = torch_model(
      _t(alone["encoder_tokens"]),
      attention_mask=_t(alone["encoder_segments"]),
      decoder_input_ids=_t(alone["decoder_inputs"]),
      decoder_attention_mask=_t(alone["decoder_segments"]),
      use_cache=False,
    ).logits
  targets = _t(alone["decoder_targets"])
  targets[_t(alone["decoder_segments"]) == 0] = -100
  want = torch.nn.functional.cross_entropy(
    logits.flatten(0, 1), targets.flatten()
  )
  batch = alone
  if packed:
    batch = collate(
      _examples(), shape=(16, 16), tokens=TOKENS, rows=2,
      places=np.array([0, 0, 1, 1]),
    )  # fmt: skip
  batch = jax.tree.map(jnp.asarray, batch)
  measure = functools.partial(step.eval_step, module=ours.module)
  sums = jax.jit(measure)(ours.params, batch)
  np.testing.assert_allclose(
    sums["loss_sum"] / sums["weight"], want.item(), rtol=1e-5
  )
  loss, weight = losses.pair_loss(
    ours.params, batch, module=ours.module, dropout_key=None,
    config=losses.LossConfig(), chunks=1,
  )  # fmt: skip
  np.testing.assert_allclose(loss / weight, want.item(), rtol=1e-5)
