"""TPUs that are not here: what the loop asks of their device objects."""

import json
import os
import pathlib
import platform
import re
import subprocess
import sys

import jax
import pytest
from jax.experimental import topologies

from train.costs.chips import total_peak_flops
from train.mesh import MeshConfig, make_mesh

pytestmark = pytest.mark.skipif(
  (sys.platform, platform.machine()) != ("linux", "x86_64"),
  reason="libtpu, the TPU's compiler, is built for Linux on x86-64 alone",
)

# Once loaded, libtpu handles a process's signals: it has a process of its own,
# and is told that there is no TPU to look for.
ENVIRONMENT = {
  "JAX_PLATFORMS": "cpu",
  "XLA_FLAGS": "",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_LOG_DIR": "disabled",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
}
# Topology, options, teraFLOP/s of its chips together, and sizes of meshes.
TOPOLOGIES = [
  ("v4:2x2x1", {"chip_config_name": "megacore"}, 4 * 275, ["1 2 1 2"]),
  ("v5e:2x2", {}, 4 * 197, ["1 4 1 1", "1 1 2 2"]),
  # An axis is shorter than the chips' rows, or longer.
  ("v5e:4x4", {}, 16 * 197, ["1 16 1 1", "1 4 2 2", "1 1 8 2", "1 8 1 2"]),
  ("v5p:2x2x4", {}, 16 * 459, ["1 4 2 2", "1 2 8 1"]),
  ("v6e:4x8", {}, 32 * 918, ["1 16 1 2", "1 8 4 1"]),
  ("tpu7x:2x2x1", {}, 4 * 2307, ["1 8 1 1", "1 4 1 2"]),
  ("v5e:4x4", {"num_slices": 2}, 32 * 197, ["2 16 1 1", "2 8 1 2"]),
]
REFUSED = [
  (
    "v5e:2x2",
    {"num_slices": 2},
    "1 8 1 1",
    "the devices are 2 slices joined by a slow network; set mesh.slice=2",
  ),
  (
    # Each core a device.
    "v4:2x2x1",
    {},
    "1 8 1 1",
    "no mesh for 8 devices of kind 'TPU v4' .* each of them one device",
  ),
]


@pytest.fixture(scope="module")
def found():
  """What a process that has libtpu finds of all these."""
  asked = [(name, options, sizes) for name, options, _, sizes in TOPOLOGIES]
  asked += [(name, options, [sizes]) for name, options, sizes, _ in REFUSED]
  done = subprocess.run(
    [sys.executable, __file__, json.dumps(asked)],
    capture_output=True,
    text=True,
    timeout=300,
    env=os.environ | ENVIRONMENT,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def test_every_generation_has_a_peak_and_its_meshes(found):
  for (name, options, teraflops, sizes), (peak, meshes) in zip(
    TOPOLOGIES, found, strict=False
  ):
    assert peak == pytest.approx(teraflops * 1e12), name
    slices = options.get("num_slices", 1)
    # One part of the slice axis is one slice.
    assert meshes == [[size, [1] * slices] for size in sizes], name


def test_devices_without_a_mesh_are_refused(found):
  refused = found[len(TOPOLOGIES) :]
  for (*_, message), (_, (said,)) in zip(REFUSED, refused, strict=True):
    assert re.search(message, said)


def _slices(devices) -> int:
  return len({getattr(device, "slice_index", 0) for device in devices})


def _mesh(sizes, devices):
  try:
    mesh = make_mesh(MeshConfig(*map(int, sizes.split())), devices)
  except ValueError as error:
    return str(error)
  shape = " ".join(str(size) for size in mesh.shape.values())
  assert set(mesh.devices.flat) == set(devices)
  return shape, [_slices(part.flat) for part in mesh.devices]


if __name__ == "__main__":
  answers = []
  for topology, options, meshes in json.loads(sys.argv[1]):
    chips = topologies.get_topology_desc(
      platform="tpu", topology_name=topology, **options
    ).devices
    made = [_mesh(sizes, chips) for sizes in meshes]
    answers.append((total_peak_flops(chips), made))
  assert jax.default_backend() == "cpu"
  print(json.dumps(answers))
