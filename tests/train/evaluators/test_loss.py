"""The loss of a set: a value an example, whatever batches they stood in."""

import numpy as np
import pytest

from data.pipeline import EvalBatch
from train.evaluators import loss

NATS = np.array([3.0, 1e8, 2.0, 1.0, 7.0])
WEIGHTS = np.array([2.0, 4.0, 1.0, 1.0, 3.0])
CORRECT = np.array([1.0, 2.0, 0.0, 0.0, 2.0])


def _measure(rows):
  """In batches of so many rows, where padded ones have losses too."""

  def eval_step(params, arrays):
    assert params == "params"
    return arrays

  batches = []
  for first in range(0, 5, rows):
    pairs = list(range(first, min(first + rows, 5)))
    pad = (0, rows - len(pairs))
    arrays = {
      "example_loss": np.pad(NATS[pairs], pad, constant_values=99.0),
      "example_weight": np.pad(WEIGHTS[pairs], pad, constant_values=9.0),
      "example_correct": np.pad(CORRECT[pairs], pad, constant_values=9.0),
    }
    arrays = {k: v.astype(np.float32) for k, v in arrays.items()}
    batches.append(EvalBatch(pairs, arrays))
  return loss.measure(eval_step, "params", batches)


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_batches_and_their_padding_leave_no_trace(rows):
  losses = _measure(rows)
  np.testing.assert_array_equal(losses.nats, NATS)
  np.testing.assert_array_equal(losses.weights, WEIGHTS)
  np.testing.assert_array_equal(losses.correct, CORRECT)
  # Float32 would lose what stands beside the large one.
  values = {name: one.value() for name, one in losses.statistics().items()}
  assert values == {"loss": (1e8 + 13) / 11, "accuracy": 5 / 11}
