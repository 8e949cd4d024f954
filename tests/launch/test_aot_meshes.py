"""The step of each kind of mesh, compiled for chips that are not here."""

import collections
import json
import os
import re
import subprocess
import sys

import jax
import pytest

from encdec.archs import ARCHS
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
# Full counts compile one of each of these pairs at full size.
PAIRS = {
  "bert": ("bert:base", "bert:base"),
  "gpt2": ("roberta:base", "gpt2:base"),
}


def compiled(name, *pair):
  """What a process of its own says of a step; libtpu changes a process."""
  done = subprocess.run(
    [sys.executable, __file__, name, *pair],
    capture_output=True,
    text=True,
    timeout=1200,
    env=os.environ | ENVIRONMENT,
  )
  assert done.returncode == 0, done.stderr
  # An array that is split one way is needed whole another way: gathered, and
  # computed again by every device.
  assert "full rematerialization" not in done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found["memory"] < 0.95 * found["chip"]
  # Parameters and both moments lie as the table says, and are donated.
  assert found["misplaced"] == []
  assert found["donated"] >= found["state"]
  return found


def moved(found, *axes):
  """Bytes by kind of what goes over these axes alone."""
  sizes = collections.Counter()
  for kind, over, size in found["collectives"]:
    if tuple(over) == axes:
      sizes[kind] += size
  return sizes


@pytest.mark.sample(2, group="compiled for accelerators")
@pytest.mark.parametrize("name", MESHES)
def test_a_step_lies_on_a_mesh_as_it_should(name):
  found = compiled(name)
  kernels, table = found["kernels"], found["table"]
  reduced = found["reduced"]
  # A tied table has two gradients, of the lookup and of the head, which are
  # reduced each for itself.
  reduced += table
  match name:
    case "data":
      # And besides a loss, a weight and the counts of a batch.
      (size,) = (s for _, _, s in found["collectives"])
      assert reduced <= size <= reduced + 64
    case "fsdp":
      # By rings of permutes, or gathered: kernels forward, backward and for
      # what is recomputed, their gradients, two lookups and a head.
      parts = moved(found, "fsdp")
      assert set(parts) == {"all-gather", "collective-permute", "all-reduce"}
      whole = parts["all-gather"] + parts["collective-permute"]
      assert 3 * kernels < whole < 4 * kernels + 3 * table
      # What lies whole, and tables, whose sum is cut after it was made.
      assert parts["all-reduce"] < reduced - kernels + 128
    case "tensor":
      # A half of what is split, and all of what is not, over the others.
      (of_data,) = moved(found, "data").values()
      assert reduced / 2 < of_data < 0.7 * reduced
      assert set(moved(found, "tensor")) == {"all-reduce"}
    case "slices":
      # First within a slice: a chip's quarter goes over the slow network.
      parts = moved(found, "fsdp")
      gathered = parts["all-gather"]
      assert 2 * (kernels + table) < gathered < 3 * (kernels + table)
      assert kernels + 3 * table <= parts["reduce-scatter"] < 1.05 * reduced
      between = moved(found, "slice")["all-reduce"]
      assert reduced / 4 <= between < 0.35 * reduced


@pytest.mark.timeout(1300)
@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_full_size_fits(name, request):
  if not request.config.option.full:
    pytest.skip("compiles for minutes: --full")
  found = compiled("fsdp", *PAIRS[name])
  # A sixteenth of three float32 copies; norms, biases and small tables whole.
  assert found["state"] < 1.1 * 3 * 4 * found["parameters"] / 16


@pytest.mark.sample(2, group="compiled for accelerators")
def test_every_architecture_of_full_size_is_split_over_a_slice():
  """By shapes alone, of 16 chips: what `PAIRS` does not compile."""
  done = subprocess.run(
    [sys.executable, __file__],
    capture_output=True,
    text=True,
    timeout=300,
    env=os.environ | ENVIRONMENT,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found.keys() == ARCHS.keys()
  for name, (parameters, state) in found.items():
    assert parameters > 5e7, name
    # A sixteenth of three float32 copies; norms, biases, small tables whole.
    assert 1 < state / (3 * 4 * parameters / 16) < 1.15, name


def main_of_shapes() -> None:
  """Prints parameters, and a chip's bytes of the state, of each architecture.

  On the side or the sides that it can be, the other one is BERT or GPT-2.
  """
  from configs import bert2bert_cnn_dailymail
  from train.build_step import build_step
  from train.costs import topology
  from train.costs.memory import device_bytes
  from train.mesh import MeshConfig, make_mesh
  from train.setup.modules import preset_module

  slice_name, slices, sizes = MESHES["fsdp"]
  mesh = make_mesh(MeshConfig(*sizes), topology.devices(slice_name, slices))
  found = {}
  for name, arch in ARCHS.items():
    size = "base" if "base" in arch.PRESETS else "large"
    config = bert2bert_cnn_dailymail.get_config("smoke")
    config.model.encoder_init = config.model.decoder_init = "random"
    for side, other in {"encoder": "bert", "decoder": "gpt2"}.items():
      try:
        arch.stack_config(arch.PRESETS[size], side)
      except ValueError:
        chosen, preset = f"{other}:base", ARCHS[other].PRESETS["base"]
      else:
        chosen, preset = f"{name}:{size}", arch.PRESETS[size]
      config.model[side] = chosen
      key = {"encoder": "source", "decoder": "target"}[side]
      config.data[f"{key}_vocab_size"] = preset["vocab_size"]
    state = build_step(config, preset_module(config), mesh).state
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    found[name] = parameters, device_bytes(state)
  print(json.dumps(found))


def main(name: str, *pair: str) -> None:
  from configs import bert2bert_cnn_dailymail
  from encdec.sharding import leaf_path
  from train.build_step import build_step
  from train.costs import ahead, topology
  from train.costs.memory import device_bytes
  from train.mesh import MeshConfig, make_mesh
  from train.setup.modules import preset_module

  slice_name, slices, sizes = MESHES[name]
  devices = topology.devices(slice_name, slices)
  config = bert2bert_cnn_dailymail.get_config("smoke")
  model, shape = config.model, (128, 128)
  model.encoder, model.decoder = pair or ("bert:mini", "bert:mini")
  model.encoder_init = model.decoder_init = "random"
  model.dtype = "bfloat16"
  model.remat = "ctx"
  model.dropout = 0.0
  vocab = 1024
  config.train.loss_chunks = 2
  config.train.batch_size = 4 * len(devices)
  if pair:
    shape, vocab, model.dropout = (512, 128), 30522, 0.1
    config.train.batch_size = 32 * len(devices)
  config.data.source_vocab_size = config.data.target_vocab_size = vocab
  axes = ("slice", "data", "fsdp", "tensor")
  for axis, size in zip(axes, sizes, strict=True):
    config.mesh[axis] = size
  mesh = make_mesh(MeshConfig(*sizes), devices)
  module = preset_module(config)
  found = ahead.compile_step(config, module, mesh, shape)
  state = build_step(config, module, mesh).state
  (given, _), _ = found.compiled.input_shardings
  misplaced = [
    leaf_path(path)
    for (path, leaf), lies in zip(
      jax.tree_util.tree_leaves_with_path(state),
      jax.tree.leaves(given),
      strict=True,
    )
    if not lies.is_equivalent_to(leaf.sharding, len(leaf.shape))
  ]
  leaves = {
    leaf_path(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    if "pooler" not in leaf_path(path)
  }
  # Kernels and biases of layers have gradients in the dtype of the computation.
  narrow = re.compile(r"(?!.*norm/).*/layers/.*/(kernel|bias)")
  reduced = sum(
    leaf.size * (2 if narrow.fullmatch(path) else 4)
    for path, leaf in leaves.items()
  )
  kernels = [
    leaf.size * 2
    for path, leaf in leaves.items()
    if narrow.fullmatch(path) and path.endswith("kernel")
  ]
  costs = found.costs
  print(
    json.dumps(
      {
        "memory": costs.memory.total,
        "chip": costs.chip.memory,
        "state": device_bytes(state),
        "donated": costs.memory.donated,
        "misplaced": misplaced,
        "collectives": [[c.kind, c.axes, c.bytes] for c in costs.collectives],
        "parameters": sum(leaf.size for leaf in leaves.values()),
        "kernels": sum(kernels),
        "table": 4 * leaves["decoder/embeddings/tokens/embedding"].size,
        "reduced": reduced,
      }
    )
  )


if __name__ == "__main__":
  main(*sys.argv[1:]) if sys.argv[1:] else main_of_shapes()
