"""Losses: sums and weights, smoothing over real ids, chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import losses

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


def reference(case, smoothing):
  """The definition, in float64: smoothed one-hot against log-softmax."""
  logits = np.einsum("BTD,DV->BTV", case["states"], case["kernel"])
  logits = logits[..., :REAL].astype(np.float64)
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  aim = np.eye(REAL)[np.asarray(case["targets"])]
  aim = (1 - smoothing) * aim + smoothing / REAL
  losses = -(aim * log_probs).sum(-1)
  weights = np.asarray(case["weights"], np.float64)
  return (losses * weights).sum(), weights.sum()


def whole(case, smoothing, kernel=None):
  head = head_of(case["kernel"] if kernel is None else kernel)
  return losses.cross_entropy(
    head(case["states"]), case["targets"], case["weights"], smoothing, REAL
  )


def chunked(case, smoothing, chunks, kernel=None):
  return losses.chunked_cross_entropy(
    head_of(case["kernel"] if kernel is None else kernel),
    case["states"],
    case["targets"],
    case["weights"],
    smoothing,
    REAL,
    chunks,
  )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_its_definition_over_real_ids(case, smoothing):
  expected = reference(case, smoothing)
  np.testing.assert_allclose(whole(case, smoothing), expected, rtol=1e-5)
  other = reference(case, 0.3)
  assert abs(other[0] / expected[0] - 1) > 1e-3


@pytest.mark.parametrize("chunks", [1, 2, 3, 7, 9])
def test_chunks_change_neither_loss_nor_gradient(case, chunks):
  def gradient(loss):
    return jax.grad(lambda kernel: loss(kernel)[0])(case["kernel"])

  np.testing.assert_allclose(
    chunked(case, 0.1, chunks), whole(case, 0.1), rtol=1e-6
  )
  expected = gradient(lambda kernel: whole(case, 0.1, kernel))
  got = gradient(lambda kernel: chunked(case, 0.1, chunks, kernel))
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
  # Columns that are no token learn nothing; the others do.
  assert not np.any(got[:, REAL:]) and np.all(np.any(got[:, :REAL], axis=0))


def test_chunked_loss_never_holds_all_logits(case):
  def program(loss):
    grad = jax.grad(lambda kernel: loss(kernel)[0])
    return jax.jit(grad).lower(case["kernel"]).as_text()

  everything = f"tensor<{B}x{T}x{V}xf32>"
  assert everything in program(lambda kernel: whole(case, 0.1, kernel))
  in_chunks = program(lambda kernel: chunked(case, 0.1, 4, kernel))
  assert everything not in in_chunks
  assert f"tensor<{B}x2x{V}xf32>" in in_chunks
  # Nor stacked, as a scan without checkpoints would keep them.
  assert f"tensor<4x{B}x2x{V}xf32>" not in in_chunks


def test_loss_is_float32_whatever_the_logits_are(case):
  logits = head_of(case["kernel"])(case["states"]).astype(jnp.bfloat16)
  loss, weight = losses.cross_entropy(
    logits, case["targets"], case["weights"], 0.0, REAL
  )
  assert loss.dtype == weight.dtype == jnp.float32
