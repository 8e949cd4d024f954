"""What CUDA's compiler is told of GPUs agrees with what the report uses."""

import re

import pytest

from train.costs.chips import CHIPS, chip_of, peak_flops
from train.costs.gpu_targets import GPU_TARGETS, target_config


class FakeGpu:
  def __init__(self, device_kind):
    self.device_kind = device_kind


@pytest.mark.parametrize("kind", list(GPU_TARGETS))
def test_a_target_has_the_figures_of_its_chip(kind):
  chip, text = CHIPS[kind], target_config(kind)
  figures = {
    name: float(value)
    for name, value in re.findall(r"^  (\w+): ([\d.]+)$", text, re.MULTILINE)
  }
  assert figures["memory_bandwidth"] == chip.bandwidth
  assert figures["device_memory_size"] == chip.memory
  # The tensor cores' dense bf16: 1024 multiply-adds a core and clock, at a
  # clock below the highest.
  peak = figures["core_count"] * figures["clock_rate_ghz"] * 1e9 * 2 * 2048
  assert chip.flops < peak < 1.2 * chip.flops


@pytest.mark.parametrize("kind", list(GPU_TARGETS))
def test_devices_of_a_topology_are_named_as_real_ones(kind):
  """So that a report has their figures, and the roofline its roofs."""
  name = GPU_TARGETS[kind].device_kind
  assert f'device_description_str: "{name}"' in target_config(kind)
  assert chip_of(FakeGpu(name)) is CHIPS[kind]
  assert peak_flops(name) == CHIPS[kind].flops
