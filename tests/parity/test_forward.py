"""The module against PyTorch: states, attentions, logits, greedy tokens."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from encdec.generation.decode_params import unstack as unstack_eagerly
from encdec.generation.generate import Prompt, generate, start_prompt
from encdec.generation.search.options import ScoreRules, SearchOptions
from encdec.hub.facade.inputs import mean_loss
from encdec.types import DecodeView

NAMES = [
  "bert-bert",
  "bert-gpt2",
  "roberta-roberta",
  "roberta-gpt2",
  "bertgeneration-bertgeneration",
  "xlmr-camembert",
  "camembert-xlmr",
  "albert-electra",
  "electra-bert",
  "distilbert-gpt2",
  "prelayernorm-prelayernorm",
  "bert-bert-widths",
  "roberta-gpt2-widths",
  "bert-bart",
  "bert-xglm",
  "bert-mbart",
  "roberta-pegasus",
  "bert-marian",
  "bert-blenderbot",
]
# The rest shares its decoding with one of them.
GREEDY = NAMES[:-4]
START, END, PAD = 3, 4, 1

unstack = jax.jit(unstack_eagerly, static_argnames="module")


def _positions(config, tokens, mask):
  """Hugging Face's positions in ours, which start at 0 after the offset."""
  if config.positions_from_ids:
    real = (tokens != config.pad_token_id).astype(np.int32)
    return (np.cumsum(real, axis=1) * real - 1).astype(np.int32)
  return np.broadcast_to(
    np.arange(tokens.shape[1], dtype=np.int32), tokens.shape
  )


@functools.partial(jax.jit, static_argnames="module")
def _forward(module, params, inputs, positions):
  apply = functools.partial(module.apply, {"params": params})
  flags = {"output_attentions": True, "output_hidden_states": True}
  ones = jnp.ones_like
  encoded = apply(
    tokens=inputs["tokens"],
    segments=inputs["mask"],
    positions=positions[0],
    query_segments=ones(inputs["mask"]),
    method="encode",
    **flags,
  )
  decoded = apply(
    tokens=inputs["decoder_tokens"],
    segments=inputs["decoder_mask"],
    positions=positions[1],
    encoder_states=encoded.states,
    encoder_segments=inputs["mask"],
    query_segments=ones(inputs["decoder_mask"]),
    method="decode_states",
    **flags,
  )
  return encoded, decoded, apply(decoded.states, method="head")


def _ours(pair, inputs, module=None, params=None):
  positions = (
    _positions(pair.config.encoder, inputs.tokens, inputs.mask),
    _positions(pair.config.decoder, inputs.decoder_tokens, inputs.decoder_mask),
  )
  arrays = {k: jnp.asarray(v) for k, v in vars(inputs).items()}
  return _forward(
    module or pair.module,
    pair.params if params is None else params,
    arrays,
    jax.tree.map(jnp.asarray, positions),
  )


def _theirs(pair, inputs, **more):
  with torch.no_grad():
    return pair.torch_model(
      input_ids=torch.tensor(inputs.tokens).long(),
      attention_mask=torch.tensor(inputs.mask).long(),
      decoder_input_ids=torch.tensor(inputs.decoder_tokens).long(),
      decoder_attention_mask=torch.tensor(inputs.decoder_mask).long(),
      output_attentions=True,
      output_hidden_states=True,
      **more,
    )


@pytest.mark.sample(5)
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_forward(pairs, make_inputs, assert_close, name, padding):
  pair = pairs(name)
  inputs = make_inputs(pair.config, padding)
  encoded, decoded, logits = _ours(pair, inputs)
  source, target = inputs.mask == 1, inputs.decoder_mask == 1
  labels = np.where(target, inputs.decoder_tokens, -100)
  with pytest.warns(FutureWarning):
    theirs = _theirs(pair, inputs, labels=torch.tensor(labels).long())
  vocab = pair.config.decoder.vocab_size
  assert logits.shape[-1] > vocab
  assert (np.asarray(logits[..., vocab:]) < -1e30).all()
  assert_close(logits[..., :vocab], theirs.logits, target, "logits")
  assert_close(mean_loss(logits, jnp.asarray(labels)), theirs.loss)
  for ours, referee, where, label in (
    (encoded.hidden_states, theirs.encoder_hidden_states, source, "encoder"),
    (decoded.hidden_states, theirs.decoder_hidden_states, target, "decoder"),
  ):
    assert len(ours) == len(referee)
    for layer, (a, b) in enumerate(zip(ours, referee, strict=True)):
      assert_close(a, b, where, f"{label} hidden state {layer}")
  for ours, referee, where, label in (
    (encoded.attentions, theirs.encoder_attentions, source, "encoder"),
    (decoded.attentions, theirs.decoder_attentions, target, "decoder"),
    (decoded.cross_attentions, theirs.cross_attentions, target, "cross"),
  ):
    assert len(ours) == len(referee)
    for layer, (a, b) in enumerate(zip(ours, referee, strict=True)):
      a, b = np.moveaxis(np.asarray(a), 1, -1), b.numpy().transpose(0, 2, 3, 1)
      assert_close(a, b, where, f"{label} attention {layer}")


def test_the_comparison_can_fail(pairs, make_inputs, assert_close):
  pair = pairs("bert-bert")
  inputs = make_inputs(pair.config, "right")
  params = jax.tree.map(lambda leaf: leaf, pair.params)
  scale = params["decoder"]["layers"]["mlp_norm"]["scale"]
  params["decoder"]["layers"]["mlp_norm"]["scale"] = scale.at[0, 0].add(0.05)
  _, _, logits = _ours(pair, inputs, params=params)
  vocab = pair.config.decoder.vocab_size
  with pytest.raises(AssertionError, match="logits"):
    assert_close(
      logits[..., :vocab],
      _theirs(pair, inputs).logits,
      inputs.decoder_mask == 1,
      "logits",
    )


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", NAMES)
def test_cached_equals_uncached(pairs, make_inputs, name):
  """A prompt of three, left-padded, then one token at a time."""
  pair = pairs(name)
  inputs = make_inputs(pair.config, "left")
  encoded, _, logits = _ours(pair, inputs)
  params = unstack(pair.params, pair.module)
  positions = jnp.asarray(
    _positions(pair.config.decoder, inputs.decoder_tokens, inputs.decoder_mask)
  )
  tokens = jnp.asarray(inputs.decoder_tokens)
  mask = jnp.asarray(inputs.decoder_mask)
  apply = functools.partial(pair.module.apply, {"params": params})
  cross = jax.jit(functools.partial(apply, method="cross_cache"))(
    encoded.states, jnp.asarray(inputs.mask)
  )
  prefill = functools.partial(apply, cache_length=9, method="prefill")
  first, cache = jax.jit(prefill)(
    tokens[:, :3], mask[:, :3], positions[:, :3], cross
  )
  step = jax.jit(functools.partial(apply, method="decode_step"))
  got = [first]
  slots = jnp.arange(9)[None, None]
  padded = jnp.pad(mask, ((0, 0), (0, 2)))[:, None]
  for slot in range(3, tokens.shape[1]):
    view = DecodeView(
      slot=jnp.int32(slot),
      query_positions=positions[:, slot : slot + 1],
      key_positions=jnp.broadcast_to(slots[0], (tokens.shape[0], 9)),
      visible=(slots <= slot) & (padded == 1),
    )
    out, cache = step(tokens[:, slot : slot + 1], view, cache, cross)
    got.append(out)
  got = np.concatenate(got, axis=1)
  real = inputs.decoder_mask == 1
  np.testing.assert_allclose(got[real], logits[real], rtol=2e-5, atol=2e-5)
  shifted = np.roll(np.asarray(logits), 1, axis=1)
  assert np.abs(got[real] - shifted[real]).max() > 0.1


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", GREEDY)
@pytest.mark.parametrize("min_length", [0, 8])
def test_greedy_tokens(pairs, make_inputs, name, min_length):
  """Rows end at different lengths, and every token is PyTorch's."""
  lengths = set()
  for seed, raise_end in itertools.product(range(4), (1.0, 2.0)):
    pair = pairs(name, seed=seed, raise_end=raise_end)
    lengths |= _same_tokens(pair, make_inputs(pair.config, "left"), min_length)
  places = 1 if min_length else 2
  assert len(lengths) > places, "rows should end at several places"


def _options(max_length, min_length=0) -> SearchOptions:
  return SearchOptions(
    max_length=jnp.int32(max_length),
    pad_token=jnp.int32(PAD),
    end_tokens=(END,),
    rules=ScoreRules(min_length=jnp.int32(min_length)),
  )


def _same_tokens(pair, inputs, min_length) -> set[int]:
  """Generates with both; the lengths of the rows."""
  max_length = 14
  with torch.no_grad():
    theirs = pair.torch_model.generate(
      torch.tensor(inputs.tokens).long(),
      attention_mask=torch.tensor(inputs.mask).long(),
      decoder_start_token_id=START,
      eos_token_id=END,
      pad_token_id=PAD,
      max_length=max_length,
      min_length=min_length,
      do_sample=False,
      num_beams=1,
      # It miscounts what follows a pad id that takes no position.
      use_cache=pair.config.decoder.unplaced_token is None,
    ).numpy()
  positions = _positions(pair.config.encoder, inputs.tokens, inputs.mask)
  ours = generate(
    pair.module,
    unstack(pair.params, pair.module),
    jnp.asarray(inputs.tokens),
    jnp.asarray(inputs.mask),
    jnp.asarray(positions),
    options=_options(max_length, min_length),
    prompt=start_prompt(len(inputs.tokens), START),
    cache_length=16,
  )
  tokens = np.asarray(ours.tokens)
  np.testing.assert_array_equal(tokens[:, : theirs.shape[1]], theirs)
  assert (tokens[:, theirs.shape[1] :] == PAD).all()
  for row, length in zip(tokens, ours.lengths, strict=True):
    ends = np.flatnonzero(row[1:] == END)
    assert length == (ends[0] + 2 if ends.size else max_length)
  return set(np.asarray(ours.lengths).tolist())


def test_greedy_from_a_prompt(pairs, make_inputs):
  pair = pairs("bert-gpt2", raise_end=3.0)
  inputs = make_inputs(pair.config, "right")
  prompt = np.array([[START, 7, 9]] * 4, np.int32)
  with torch.no_grad():
    theirs = pair.torch_model.generate(
      torch.tensor(inputs.tokens).long(),
      attention_mask=torch.tensor(inputs.mask).long(),
      decoder_input_ids=torch.tensor(prompt).long(),
      decoder_start_token_id=START,
      eos_token_id=END,
      pad_token_id=PAD,
      max_length=12,
      do_sample=False,
    ).numpy()
  positions = np.broadcast_to(np.arange(9, dtype=np.int32), inputs.tokens.shape)
  index = np.broadcast_to(np.arange(3, dtype=np.int32), prompt.shape)
  ours = generate(
    pair.module,
    unstack(pair.params, pair.module),
    jnp.asarray(inputs.tokens),
    jnp.asarray(inputs.mask),
    jnp.asarray(positions),
    options=_options(12),
    cache_length=12,
    prompt=Prompt(
      jnp.asarray(prompt), jnp.ones((4, 3), jnp.int32), jnp.asarray(index)
    ),
  )
  np.testing.assert_array_equal(
    np.asarray(ours.tokens)[:, : theirs.shape[1]], theirs
  )
