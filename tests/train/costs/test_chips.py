"""The figures of chips, and the peaks of devices by their kind."""

import dataclasses

import pytest

from train.costs.chips import CHIPS, chip_of, peak_flops, total_peak_flops


@pytest.mark.parametrize(
  ("kind", "teraflops"),
  [
    ("TPU v4", 275),
    ("TPU v5 lite", 197),
    ("TPU v5", 459),
    ("TPU v5p", 459),
    ("TPU v6 lite", 918),
    ("NVIDIA H100 80GB HBM3", 989),
    ("NVIDIA H100 PCIe", 756),
    ("NVIDIA H200", 989),
    ("NVIDIA A100-SXM4-40GB", 312),
    ("NVIDIA L40S", 362),
    ("NVIDIA L4", 121),
    ("NVIDIA A100 80GB PCIe", 312),
    ("NVIDIA A10", 125),
    ("NVIDIA A10G", 70),
    ("NVIDIA GH200 480GB", 989),
    ("NVIDIA H20", 148),
  ],
)
def test_the_peak_of_a_chip(kind, teraflops):
  assert peak_flops(kind) == teraflops * 1e12


@pytest.mark.parametrize(
  "kind",
  [
    "cpu",
    "NVIDIA L400",
    "TPU v50",
    "TPU",
    "TPU v4 lite",
    # It has no bf16.
    "Tesla V100-SXM2-16GB",
    # Parts of a GPU.
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    "NVIDIA A40-8Q",
  ],
)
def test_the_peak_of_an_unknown_chip_is_unknown(kind):
  assert peak_flops(kind) is None


@dataclasses.dataclass(frozen=True)
class FakeGpu:
  """As much of a device as its peak needs."""

  device_kind: str
  platform: str = "gpu"


@dataclasses.dataclass(frozen=True)
class FakeTpu(FakeGpu):
  num_cores: int = 1
  platform: str = "tpu"


def test_the_peaks_of_devices_add_up():
  gpus = [FakeGpu("NVIDIA H200"), FakeGpu("NVIDIA A100-SXM4-80GB")]
  assert total_peak_flops(gpus) == (989 + 312) * 1e12
  assert total_peak_flops([*gpus, FakeGpu("NVIDIA X1")]) is None
  # Chips, or each of their cores.
  chips = [FakeTpu("TPU v4", num_cores=2)] * 4
  cores = [FakeTpu("TPU v4")] * 8
  assert total_peak_flops(chips) == total_peak_flops(cores) == 4 * 275e12


def test_a_device_has_the_peak_of_its_chip():
  for kind, cores in (("TPU v4", 2), ("TPU v5 lite", 1), ("TPU7x", 1)):
    chip = chip_of(FakeTpu(kind, num_cores=cores))
    assert chip is not None and chip.flops == peak_flops(kind, cores)
  assert chip_of(FakeGpu("NVIDIA H200")) is CHIPS["h200"]
  # One core of a chip has half of everything; an unknown chip, nothing.
  assert chip_of(FakeTpu("TPU v4", num_cores=1)) is None
  assert chip_of(FakeGpu("NVIDIA X1")) is None
