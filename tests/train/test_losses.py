"""Losses: sums and weights, smoothing over real ids, chunks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import losses
from train.losses import LossConfig

B, T, D, V, REAL = 3, 7, 5, 16, 11


@pytest.fixture(scope="module")
def case(seed):
  rng = np.random.default_rng(seed)
  return {
    "states": jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32),
    "kernel": jnp.asarray(rng.normal(size=(D, V)), jnp.float32),
    "targets": jnp.asarray(rng.integers(0, REAL, (B, T)), jnp.int32),
    "weights": jnp.asarray(rng.integers(0, 2, (B, T)), jnp.float32),
  }


def head_of(kernel):
  """Logits whose padding columns are masked, as the module's are."""

  def head(states):
    logits = jnp.einsum("BTD,DV->BTV", states, kernel)
    real = jnp.arange(V)[None, None] < REAL
    return jnp.where(real, logits, jnp.finfo(jnp.float32).min)

  return head


PAD = 4
CONFIG = LossConfig(0.1, "opennmt", PAD, z_loss=1e-3)


def logits_of(case):
  logits = np.einsum("BTD,DV->BTV", case["states"], case["kernel"])
  return logits[..., :REAL].astype(np.float64)


def log_probs_of(logits):
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def summed(case, nats):
  weights = np.asarray(case["weights"], np.float64)
  return (nats * weights).sum(), weights.sum()


def aims(case, config):
  """The smoothed one-hot targets as each form's authors define them."""
  hit = np.eye(REAL)[np.asarray(case["targets"])]
  smoothing = config.label_smoothing
  others = 1 - hit
  match config.smoothing_form:
    case "uniform":
      others = np.ones_like(hit)
    case "opennmt":
      others[..., PAD] = 0
  others /= others.sum(-1, keepdims=True)
  return (1 - smoothing) * hit + smoothing * others


def reference(case, config):
  """The definition, in float64: a smoothed one-hot against log-softmax."""
  logits = logits_of(case)
  nats = -(aims(case, config) * log_probs_of(logits)).sum(-1)
  normaliser = np.log(np.exp(logits).sum(-1))
  return summed(case, nats + config.z_loss * normaliser**2)


def whole(case, config, kernel=None):
  head = head_of(case["kernel"] if kernel is None else kernel)
  logits, targets = head(case["states"]), case["targets"]
  nats = losses.token_losses(logits, targets, config, REAL)
  return jnp.sum(nats * case["weights"]), jnp.sum(case["weights"])


def chunked(case, config, chunks, kernel=None):
  nats = losses.score_in_chunks(
    functools.partial(losses.token_losses, config=config, vocab_size=REAL),
    head_of(case["kernel"] if kernel is None else kernel),
    case["states"],
    case["targets"],
    chunks,
  )
  return jnp.sum(nats * case["weights"]), jnp.sum(case["weights"])


def smooth(form="uniform", **others):
  return LossConfig(0.1, form, PAD, **others)


@pytest.mark.parametrize(
  "config",
  [
    LossConfig(),
    *map(smooth, losses.SMOOTHING_FORMS),
    LossConfig(z_loss=0.01),
    smooth("others", z_loss=0.01),
  ],
)
def test_token_losses_are_their_definition_over_real_ids(case, config):
  expected = reference(case, config)
  np.testing.assert_allclose(whole(case, config), expected, rtol=1e-5)
  others = [LossConfig(), LossConfig(0.3), *map(smooth, losses.SMOOTHING_FORMS)]
  for other in others:
    if other != config:
      assert abs(reference(case, other)[0] / expected[0] - 1) > 1e-4


def test_opennmt_smooths_as_its_divergence_does(case):
  """Its loss is the divergence from the smoothed target: without a constant
  the same, as its gradient is."""
  config = smooth("opennmt")
  kept = np.asarray(case["targets"]) != PAD
  aim, log_probs = aims(case, config), log_probs_of(logits_of(case))
  assert np.allclose(aim[kept].max(-1), 0.9)
  assert np.allclose(np.sort(aim[kept])[:, 1:-1], 0.1 / (REAL - 2))
  entropy = -(aim * np.log(np.maximum(aim, 1e-30))).sum(-1)
  divergence = (aim * (np.log(np.maximum(aim, 1e-30)) - log_probs)).sum(-1)
  expected = summed(case, divergence + entropy)
  np.testing.assert_allclose(whole(case, config), expected, rtol=1e-5)


def test_r_drop_adds_the_divergence_of_two_predictions(case, seed):
  rng = np.random.default_rng(seed + 1)
  logits = rng.normal(size=(B, 2, T, V)).astype(np.float32)
  logits[..., REAL:] = np.finfo(np.float32).min
  config = smooth(r_drop=3.0)
  got = losses.r_drop_losses(
    jnp.asarray(logits.reshape(2 * B, T, V)), case["targets"], config, REAL
  )
  log_probs = log_probs_of(logits[..., :REAL].astype(np.float64))
  nats = -(aims(case, config)[:, None] * log_probs).sum(-1)
  one, other = log_probs[:, 0], log_probs[:, 1]
  there = (np.exp(one) * (one - other)).sum(-1)
  back = (np.exp(other) * (other - one)).sum(-1)
  # The paper's equations 2 to 4, halved.
  expected = (nats.sum(1) + 3.0 * (there + back) / 2) / 2
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  assert np.min(there + back) > 1e-2


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"label_smoothing": 1.0}, r"train\.label_smoothing=1\.0 must lie"),
    ({"smoothing_form": "even"}, r"train\.smoothing_form='even' is unknown"),
    ({"z_loss": -1e-4}, r"train\.z_loss=-0\.0001 must be finite"),
    ({"r_drop": float("inf")}, r"train\.r_drop=inf must be finite"),
  ],
)
def test_wrong_settings_are_refused_by_name(values, message):
  with pytest.raises(ValueError, match=message):
    LossConfig(**values)


@pytest.mark.parametrize("chunks", [1, 2, 3, 7, 9])
def test_chunks_change_neither_loss_nor_gradient(case, chunks):
  def gradient(loss):
    return jax.grad(lambda kernel: loss(kernel)[0])(case["kernel"])

  np.testing.assert_allclose(
    chunked(case, CONFIG, chunks), whole(case, CONFIG), rtol=1e-6
  )
  expected = gradient(lambda kernel: whole(case, CONFIG, kernel))
  got = gradient(lambda kernel: chunked(case, CONFIG, chunks, kernel))
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
  # Columns that are no token learn nothing; the others do.
  assert not np.any(got[:, REAL:]) and np.all(np.any(got[:, :REAL], axis=0))


def test_chunked_loss_never_holds_all_logits(case):
  def program(loss):
    grad = jax.grad(lambda kernel: loss(kernel)[0])
    return jax.jit(grad).lower(case["kernel"]).as_text()

  everything = f"tensor<{B}x{T}x{V}xf32>"
  assert everything in program(lambda kernel: whole(case, CONFIG, kernel))
  in_chunks = program(lambda kernel: chunked(case, CONFIG, 4, kernel))
  assert everything not in in_chunks
  assert f"tensor<{B}x2x{V}xf32>" in in_chunks
  # Nor stacked, as a scan without checkpoints would keep them.
  assert f"tensor<4x{B}x2x{V}xf32>" not in in_chunks


def test_loss_is_float32_whatever_the_logits_are(case):
  logits = head_of(case["kernel"])(case["states"]).astype(jnp.bfloat16)
  nats = losses.token_losses(logits, case["targets"], CONFIG, REAL)
  assert nats.dtype == jnp.float32
