"""A step that fits no memory is refused, with flags that would be enough."""

import re
import types

import pytest

from configs import common
from train.costs.fit import check_fits, memory_limit
from train.costs.memory import Memory
from train.errors import Refusal

GB = 10**9


def memory(state: float, temporary: float) -> Memory:
  return Memory(
    parameters=round(state / 3 * GB),
    optimizer=round(2 * state / 3 * GB),
    inputs=round(state * GB),
    outputs=0,
    temporary=round(temporary * GB),
    activations=0,
    code=0,
    donated=0,
  )


def test_what_fits_is_not_refused():
  check_fits(memory(3, 12.9), 16 * GB, common.get_config(), 1)


def test_fewer_rows_at_a_time_are_enough():
  config = common.get_config()
  with pytest.raises(Refusal, match=r"needs 33.00 GB .* has 16.00") as refused:
    check_fits(memory(3, 30), 16 * GB, config, 1)
  steps = re.search(r"train.accumulate_steps=(\d+)", str(refused.value))
  # 30 GB of 32 rows: 13 GB are left for them.
  assert steps and int(steps[1]) == 4 and 30 / 4 <= 13 < 30 / 2
  assert "train.batch_size=8" in str(refused.value)
  assert "model.remat='full'" in str(refused.value)
  config.model.remat = "full"
  with pytest.raises(Refusal) as refused:
    check_fits(memory(3, 30), 16 * GB, config, 1)
  assert "remat" not in str(refused.value)


def test_what_is_named_divides_the_mesh():
  config = common.get_config()
  # Four rows a device: by two halves, or one by one.
  with pytest.raises(Refusal, match=r"accumulate_steps=4: 1 rows a device"):
    check_fits(memory(3, 30), 16 * GB, config, 8)
  # A row that does not fit cannot be cut.
  with pytest.raises(Refusal) as refused:
    check_fits(memory(3, 30), 16 * GB, config, 32)
  assert "accumulate_steps" not in str(refused.value)
  assert "model.remat='full'" in str(refused.value)


def test_a_state_that_is_too_large_is_shared():
  with pytest.raises(Refusal, match=r"mesh.fsdp to 4 times what it is"):
    check_fits(memory(30, 1), 16 * GB, common.get_config(), 1)


def test_a_device_may_not_say_what_it_has():
  class OfATopology:
    def memory_stats(self):
      raise RuntimeError("not addressable")

  assert memory_limit(OfATopology()) is None
  silent = types.SimpleNamespace(memory_stats=lambda: None)
  assert memory_limit(silent) is None
  said = types.SimpleNamespace(memory_stats=lambda: {"bytes_limit": 7})
  assert memory_limit(said) == 7
