"""Full-size models by shape alone: PyTorch's counts, and a rule a leaf."""

import dataclasses

import jax
import pytest
import torch
import transformers
from jax.sharding import AbstractMesh

from encdec import sharding
from encdec.archs import ARCHS
from encdec.config import EncDecConfig, Role
from encdec.hub.configs import side_config, stack_config
from encdec.model import FlaxEncoderDecoderModule, param_shapes

ONE_SIDED = {
  "gpt2": Role.DECODER,
  "distilbert": Role.ENCODER,
  "albert": Role.ENCODER,
}
# Decoders alone are counted with their own tests: PyTorch counts the positions
# that some of them compute.
APART = ("bart", "mbart", "pegasus", "marian", "blenderbot", "xglm")
CASES = [
  (name, size, role)
  for name, arch in ARCHS.items()
  for size, preset in arch.PRESETS.items()
  for role in Role
  if name not in APART
  and preset["vocab_size"] >= 30000
  and ONE_SIDED.get(name, role) == role
]


def _hub(name: str, size: str) -> transformers.PretrainedConfig:
  return side_config({**ARCHS[name].PRESETS[size], "model_type": name})


def _pytorch_count(config: transformers.PretrainedConfig, role: Role) -> int:
  auto: type = transformers.AutoModel
  if role == Role.DECODER:
    config.update({"is_decoder": True, "add_cross_attention": True})
    auto = transformers.AutoModelForCausalLM
  with torch.device("meta"):
    model = auto.from_config(config)
  return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.sample(6)
@pytest.mark.parametrize(("name", "size", "role"), CASES)
def test_a_full_size_side_has_pytorchs_parameters(name, size, role):
  hub = _hub(name, size)
  sides = {
    Role.ENCODER: stack_config(_hub("bert", "tiny"), Role.ENCODER),
    Role.DECODER: stack_config(_hub("bert", "tiny"), Role.DECODER),
    role: stack_config(hub, role),
  }
  config = EncDecConfig(sides[Role.ENCODER], sides[Role.DECODER])
  shapes = param_shapes(FlaxEncoderDecoderModule(config))
  ours = sum(leaf.size for leaf in jax.tree.leaves(shapes[role]))
  assert ours == _pytorch_count(hub, role)
  padded = dataclasses.replace(config, vocab_multiple=128)
  shapes = param_shapes(FlaxEncoderDecoderModule(padded))
  mesh = AbstractMesh((1, 1, 2, 2), sharding.MESH_AXES)
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
    # Raises unless exactly one rule matches, and the mesh divides.
    where = sharding.leaf_path(path)
    axes = sharding.logical_axes(where)
    sharding.resolve(where, leaf.shape, axes, sharding.DEFAULT_RULES, mesh)


def test_each_family_has_the_published_sizes():
  """Those that never were published in a size are named here."""
  without = {
    ("bert-generation", "base"),
    ("distilbert", "large"),
    ("mbart", "base"),
    ("pegasus", "base"),
  }
  sizes = {(name, size) for name in ARCHS for size in ("base", "large")}
  held = {(name, size) for name in ARCHS for size in ARCHS[name].PRESETS}
  assert sizes - held == without
  assert ARCHS["xlm-roberta"].PRESETS["base"]["vocab_size"] == 250_002
  assert ARCHS["camembert"].PRESETS["base"]["vocab_size"] == 32_005
