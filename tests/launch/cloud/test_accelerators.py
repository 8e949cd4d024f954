"""Accelerators by their short names."""

import re

import pytest

from launch.cloud import accelerators
from launch.program import Refusal


@pytest.mark.parametrize(
  ("topology", "hosts", "chips"),
  [
    ("v4:2x2x1", 1, 4),
    ("v4:2x2x4", 4, 4),
    ("v5e:1x1", 1, 1),
    ("v5e:2x4", 1, 8),
    ("v5e:4x8", 8, 4),
    ("v5p:16x16x24", 1536, 4),
    ("v6e:2x2", 1, 4),
    ("v6e:16x16", 64, 4),
    ("tpu7x:4x4x4", 16, 4),
  ],
)
def test_a_topology_is_so_many_machines(topology, hosts, chips):
  found = accelerators.tpu_slice(topology)
  assert (found.hosts, found.host_chips) == (hosts, chips)
  labels = found.selector
  shape = labels["cloud.google.com/gke-tpu-topology"]
  assert shape == topology.partition(":")[2]


def test_every_generation_has_an_example_that_there_is():
  for kind, tpu in accelerators.TPUS.items():
    found = accelerators.tpu_slice(f"{kind}:{tpu.example}")
    assert tpu.label in found.selector.values()
  assert accelerators.TPUS["v5e"].label == "tpu-v5-lite-podslice"


@pytest.mark.parametrize(
  ("topology", "said"),
  [
    ("v9:2x2", "the chip 'v9' is not known; those that are: v4:2x2x2, v5e:4x4"),
    ("4x4", "the chip '4x4' is not known"),
    ("v5e:2x2x1", "a slice of v5e has 2 sides, as v5e:4x4 has"),
    ("v5e:", "has 2 sides"),
    ("v5e:4x4x", "has 2 sides"),
    ("v5e:1x2", "no such slice of v5e, whose sides are 1x1, 2x2"),
    ("v5e:3x4", "no such slice of v5e"),
    ("v5e:16x32", "with at most 256 chips"),
    ("v5p:4x2x2", "2x2x1, 2x2x2, 2x2x4, 2x4x4, or multiples of 4"),
    ("v5p:4x8x4", "that ascend"),
  ],
)
def test_a_topology_that_is_not_there_is_refused(topology, said):
  with pytest.raises(
    Refusal, match=re.escape(f"--topology={topology}")
  ) as info:
    accelerators.tpu_slice(topology)
  assert said in str(info.value)


def test_gpus_are_named_with_their_number():
  found = accelerators.gpu_hosts("h100:4", 3)
  assert (found.hosts, found.host_chips) == (3, 4)
  assert found.resource == "nvidia.com/gpu"
  for gpu, said in (("h100", "1 to 8"), ("h100:9", "1 to 8"), ("v100:8", "l4")):
    with pytest.raises(Refusal, match=re.escape(f"--gpu={gpu}: ")) as info:
      accelerators.gpu_hosts(gpu, 1)
    assert said in str(info.value)
