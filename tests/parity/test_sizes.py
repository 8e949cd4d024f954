"""Full-size models by shape alone: PyTorch's counts, and a rule a leaf."""

import jax
import pytest
import torch
import transformers

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
# Two more names of RoBERTa's file, whose presets are RoBERTa's.
SAME = ("xlm-roberta", "camembert")
# Decoders alone are counted with their own tests: PyTorch counts the positions
# that some of them compute.
APART = ("bart", "mbart", "pegasus", "marian", "blenderbot", "xglm")
CASES = [
  (name, size, role)
  for name, arch in ARCHS.items()
  for size, preset in arch.PRESETS.items()
  for role in Role
  if name not in SAME + APART
  and preset["vocab_size"] >= 30000
  and ONE_SIDED.get(name, role) == role
]


def _hub(name: str, size: str) -> transformers.PretrainedConfig:
  return side_config(ARCHS[name].PRESETS[size])


def _pytorch_count(config: transformers.PretrainedConfig, role: Role) -> int:
  auto: type = transformers.AutoModel
  if role == Role.DECODER:
    config.update({"is_decoder": True, "add_cross_attention": True})
    auto = transformers.AutoModelForCausalLM
  with torch.device("meta"):
    model = auto.from_config(config)
  return sum(parameter.numel() for parameter in model.parameters())


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
  leaves, _ = jax.tree_util.tree_flatten_with_path(shapes)
  for path, leaf in leaves:
    # Raises unless exactly one rule matches.
    axes = sharding.logical_axes(sharding.leaf_path(path))
    assert len(axes) == len(leaf.shape)
  ours = sum(leaf.size for leaf in jax.tree.leaves(shapes[role]))
  assert ours == _pytorch_count(hub, role)
