"""A packed batch gives each pair the loss, and the gradient, it has alone."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.collate import collate
from data.examples import Tokens, make_example
from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.model import FlaxEncoderDecoderModule, param_shapes
from train import losses

LONGEST, VOCAB = 9, 40
# Longer than the position tables, which limit a pair and not a row.
SHAPE = (40, 24)
PLACES = np.array([0, 0, 0, 1, 1, 1, 1, 1, 2])

# Every way to embed a position: after RoBERTa's offset; from 0; after BART's
# offset; by sinusoids. In full also what differs otherwise.
PAIRS = (
  ("roberta", "roberta"),
  ("bert", "gpt2"),
  ("bert", "bart"),
  ("bert", "marian"),
)
MORE = (("bert", "bert"), ("albert", "xglm"))


def _stack(name: str, role: str):
  hub = dict(ARCHS[name].PRESETS["tiny"])
  for key, value in {
    "max_position_embeddings": LONGEST + (2 if name == "roberta" else 0),
    "n_positions": LONGEST,
    "vocab_size": VOCAB,
  }.items():
    if key in hub:
      hub[key] = value
  # One layer of width 32; every architecture calls it otherwise.
  for key in hub:
    if (
      key in ("n_layer", "num_layers", "num_hidden_layers")
      or "er_layers" in key
    ):
      hub[key] = 1
    elif key in ("hidden_size", "n_embd", "d_model"):
      hub[key] = 32
    elif key == "intermediate_size" or key.endswith("ffn_dim"):
      hub[key] = 48
    elif hub[key] == 0.1 and "drop" in key:
      hub[key] = 0.0
  return ARCHS[name].stack_config(hub, role)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
  """Gives a test every pair, or two by the seed at reduced counts."""
  if "model" not in metafunc.fixturenames:
    return
  pairs = PAIRS + MORE
  if not metafunc.config.option.full:
    pairs = random.Random(metafunc.config.option.seed).sample(PAIRS, 2)
  metafunc.parametrize("model", pairs, indirect=True, ids="-".join)


@pytest.fixture(scope="module")
def model(request, random_params):
  encoder, decoder = request.param
  module = FlaxEncoderDecoderModule(
    EncDecConfig(_stack(encoder, "encoder"), _stack(decoder, "decoder"))
  )
  params = random_params(param_shapes(module), 0.2)
  # Biases and scales too have values of their own.
  rng = np.random.default_rng(4)
  return module, jax.tree.map(
    lambda leaf: jnp.asarray(leaf + 0.1 * rng.normal(size=leaf.shape), "f4"),
    params,
  )


@pytest.fixture(scope="module")
def batches():
  """The same pairs alone and packed; a weight a pair."""
  rng = np.random.default_rng(0)
  examples = [
    make_example(
      rng.integers(3, VOCAB, source).tolist(),
      rng.integers(3, VOCAB, target).tolist(),
      start_id=1,
      end_id=2,
      max_source_length=LONGEST,
      max_target_length=LONGEST,
    )
    # The second row's sources fill it: its padding sees no key.
    for source, target in zip(
      (9, 1, 6, 9, 9, 9, 9, 4, 5), (8, 1, 3, 5, 1, 2, 4, 4, 6), strict=True
    )
  ]
  tokens = Tokens(start=1, end=2, source_pad=0, target_pad=0)
  alone = collate(examples, shape=(LONGEST, LONGEST), tokens=tokens)
  packed = collate(examples, shape=SHAPE, tokens=tokens, rows=4, places=PLACES)
  assert (packed["encoder_segments"][1] > 0).all()
  return alone, packed, rng.uniform(0.5, 2.0, len(PLACES)).astype(np.float32)


def _by_pair(batch: dict, packed: bool) -> np.ndarray:
  """`[P, B, T]`: which targets are those of a pair."""
  segments = batch["decoder_segments"]
  rows, numbers = np.arange(len(PLACES)), np.ones(len(PLACES))
  if packed:
    rows = PLACES
    numbers = np.arange(len(PLACES)) - np.searchsorted(PLACES, PLACES) + 1
  here = np.arange(len(segments))[None, :, None] == rows[:, None, None]
  return here & (segments[None] == numbers[:, None, None])


@pytest.fixture(scope="module")
def measure(model):
  """`measure(batch, which, weights)`: the loss of each pair, and the gradient
  of their weighted sum."""
  module, params = model

  def total(params, batch, which, weights):
    states, head = losses.decoder_states(params, batch, module, None)
    nats = losses.token_losses(
      head(states), batch["decoder_targets"], losses.LossConfig(), VOCAB
    )
    nats = nats * batch["decoder_weights"]
    pairs = jnp.sum(jnp.where(which, nats[None], 0.0), axis=(1, 2))
    return jnp.sum(pairs * weights), pairs

  compiled = jax.jit(jax.value_and_grad(total, has_aux=True))

  def run(*arguments):
    (_, pairs), grads = compiled(params, *arguments)
    return np.asarray(pairs), jax.tree.map(np.asarray, grads)

  return run


@pytest.fixture(scope="module")
def alone(measure, batches):
  batch, _, weights = batches
  return measure(batch, _by_pair(batch, packed=False), weights)


def test_a_pair_has_the_loss_it_has_alone(measure, batches, alone):
  _, packed, weights = batches
  pairs, grads = measure(packed, _by_pair(packed, packed=True), weights)
  want_pairs, want_grads = alone
  np.testing.assert_allclose(pairs, want_pairs, rtol=1e-5)
  for (path, got), want in zip(
    jax.tree_util.tree_leaves_with_path(grads),
    jax.tree.leaves(want_grads),
    strict=True,
  ):
    # Of the largest: sums over tokens come in another order.
    error = np.abs(got - want).max() / max(1.0, np.abs(want).max())
    assert error < 1e-5, (jax.tree_util.keystr(path), error)
  # And some gradient there is.
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads)) > 0.1


def _one_segment(batch, side):
  name = f"{side}_segments"
  return {name: (batch[name] > 0).astype(np.int32)}


def _running_positions(batch, side):
  """As if a row were one pair, within the table."""
  length = batch[f"{side}_positions"].shape[1]
  index = np.arange(length, dtype=np.int32) % LONGEST
  return {
    f"{side}_positions": np.broadcast_to(
      index, batch[f"{side}_positions"].shape
    ).copy()
  }


@pytest.mark.parametrize("side", ["encoder", "decoder"])
@pytest.mark.parametrize("spoil", [_one_segment, _running_positions])
def test_wrong_segments_and_positions_change_it(
  measure, batches, alone, side, spoil
):
  _, packed, weights = batches
  which = _by_pair(packed, packed=True)
  pairs, _ = measure(packed | spoil(packed, side), which, weights)
  assert np.abs(pairs - alone[0]).max() > 1e-2
  # The pair that is alone in its row has its loss all the same.
  np.testing.assert_allclose(pairs[-1], alone[0][-1], rtol=1e-5)
