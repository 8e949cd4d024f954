"""The step of each kind of mesh, compiled for chips that are not here."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from tests.launch.test_aot import pytestmark
from tests.train.test_mesh_topologies import ENVIRONMENT

__all__ = ["pytestmark"]
# Topology, slices, sizes of the mesh (slice, data, fsdp, tensor).
MESHES = {
  "data": ("v5e:2x2", 1, (1, 4, 1, 1)),
  "fsdp": ("v5e:4x4", 1, (1, 1, 16, 1)),
  "tensor": ("v5e:2x2", 1, (1, 2, 1, 2)),
  "slices": ("v5e:2x2", 2, (2, 1, 4, 1)),
}


def compiled(*arguments):
  """What a process of its own says of a step; libtpu changes a process."""
  done = subprocess.run(
    [sys.executable, __file__, *arguments],
    capture_output=True,
    text=True,
    timeout=580,
    env=os.environ | ENVIRONMENT,
  )
  assert done.returncode == 0, done.stderr
  # An array that is split one way is needed whole another way: gathered, and
  # computed again by every device.
  assert "full rematerialization" not in done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", MESHES)
def test_a_step_lies_on_a_mesh_as_it_should(name):
  print(compiled(name))


def main(name: str) -> None:
  from configs import bert2bert_cnn_dailymail
  from train.costs import ahead, topology
  from train.mesh import MeshConfig, make_mesh
  from train.setup.modules import preset_module

  slice_name, slices, sizes = MESHES[name]
  devices = topology.devices(slice_name, slices)
  config = bert2bert_cnn_dailymail.get_config("smoke")
  config.model.encoder = config.model.decoder = "bert:mini"
  config.model.encoder_init = config.model.decoder_init = "random"
  config.data.source_vocab_size = config.data.target_vocab_size = 1024
  config.model.dropout = 0.0
  config.model.dtype = "bfloat16"
  config.train.loss_chunks = 2
  config.train.batch_size = 4 * len(devices)
  config.mesh.slice, config.mesh.data, config.mesh.fsdp, config.mesh.tensor = (
    sizes
  )
  mesh = make_mesh(MeshConfig(*sizes), devices)
  found = ahead.compile_step(config, preset_module(config), mesh, (128, 128))
  costs = found.costs
  print(found.seconds)
  print(dataclasses.asdict(costs.memory))
  for c in costs.collectives:
    print(c)
  print(json.dumps({}))


if __name__ == "__main__":
  main(*sys.argv[1:])
