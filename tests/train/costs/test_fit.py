"""A step that fits no memory is refused, with flags that would be enough."""

import re
import types

import jax
import pytest

from configs import common
from train.costs.fit import check_fits, check_generation_fits, memory_limit
from train.costs.memory import Memory
from train.errors import Refusal
from train.mesh import MeshConfig, check_batch_size, make_mesh, sharding_rules

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


def said(state, temporary, config, devices=8, **sizes) -> str:
  mesh = make_mesh(MeshConfig(**sizes), jax.devices()[:devices])
  with pytest.raises(Refusal) as refused:
    check_fits(memory(state, temporary), 16 * GB, config, mesh)
  return str(refused.value)


def number(flag: str, text: str) -> int:
  found = re.search(rf"{re.escape(flag)}=(\d+)", text)
  assert found, text
  return int(found[1])


def test_what_fits_is_not_refused():
  mesh = make_mesh(MeshConfig())
  check_fits(memory(3, 12.9), 16 * GB, common.get_config(), mesh)


def test_fewer_rows_at_a_time_are_enough():
  config = common.get_config()
  text = said(3, 30, config)
  assert re.search(r"needs 33.00 GB .* has 16.00", text)
  # 30 GB of 4 rows a device, of which 2 are gradients and their sum: 11 GB are
  # left for the rest.
  assert number("train.accumulate_steps", text) == 4 and 28 / 4 <= 11 < 28 / 2
  assert "1 rows of a device at a time" in text
  assert number("train.batch_size", text) == 8
  assert "model.remat='full'" in text
  config.model.remat = "full"
  assert "remat" not in said(3, 30, config)


@pytest.mark.parametrize("temporary", [17, 30, 60, 200, 900])
@pytest.mark.parametrize("devices", [1, 4, 8])
def test_the_rows_that_are_named_are_legal(devices, temporary):
  """Microbatches have rows for every device; too few rows are not named."""
  config = common.get_config()
  config.train.batch_size, config.train.accumulate_steps = 64, 2
  text = said(3, temporary, config, devices)
  if "accumulate_steps" not in text:
    assert temporary > 11 * 64 / 2 / devices
    return
  mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
  rules = sharding_rules(config)
  parts = number("train.accumulate_steps", text)
  check_batch_size("train.batch_size", 64, parts, mesh, rules)
  rows = number("train.batch_size", text)
  check_batch_size("train.batch_size", rows, 2, mesh, rules)


def test_where_rows_do_not_help_something_else_is_named():
  config = common.get_config()
  config.train.batch_size = 8
  config.model.remat, config.train.loss_chunks = "full", 4
  text = said(3, 30, config)
  assert "accumulate_steps" not in text and "mesh.fsdp=2 or more" in text


def test_a_state_that_is_too_large_is_shared():
  config = common.get_config()
  assert "mesh.fsdp=4 or more, with mesh.data=-1" in said(30, 1, config)
  # It is shared already: more must.
  assert "mesh.fsdp=8 or more" in said(30, 1, config, data=4, fsdp=2)
  # More than there are: a quarter of 240 GB shall be half of 16.
  assert "mesh.fsdp=32, on as many devices or more" in said(
    60, 1, config, data=2, fsdp=4
  )
  assert "mesh.fsdp=4, on as many devices" in said(30, 1, config, devices=1)


def test_a_device_may_not_say_what_it_has():
  class OfATopology:
    def memory_stats(self):
      raise RuntimeError("not addressable")

  assert memory_limit(OfATopology()) is None
  silent = types.SimpleNamespace(memory_stats=lambda: None)
  assert memory_limit(silent) is None
  said = types.SimpleNamespace(memory_stats=lambda: {"bytes_limit": 7})
  assert memory_limit(said) == 7


def test_generation_that_does_not_fit_names_what_to_lower():
  check_generation_fits(memory(3, 12.9), 16 * GB, 32)
  with pytest.raises(
    Refusal, match=r"32 rows needs 17.00 GB .* has 16.00.*eval.batch_size"
  ):
    check_generation_fits(memory(3, 14), 16 * GB, 32)
