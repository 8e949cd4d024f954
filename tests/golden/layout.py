"""Every architecture's parameters: path, shape, dtype, logical axes.

`python tests/golden/layout.py` writes layout.txt.
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_suffix(".txt")

if __name__ == "__main__":
  sys.path.insert(0, str(ROOT))

# ruff: noqa: E402
from encdec import sharding
from encdec.adapters import LoraConfig
from encdec.archs import ARCHS
from encdec.config import EncDecConfig, Role, StackConfig
from encdec.model import FlaxEncoderDecoderModule, param_shapes

# Encoder, decoder and the decoder's Hub values that differ from its preset.
PAIRS = (
  ("bert", "bert", {}),
  ("roberta", "roberta", {}),
  ("xlm-roberta", "camembert", {}),
  ("bert-generation", "bert-generation", {}),
  ("bert", "gpt2", {"n_embd": 64, "tie_word_embeddings": False}),
  ("bert", "bart", {}),
  ("bert", "mbart", {}),
  ("bert", "pegasus", {}),
  ("bert", "marian", {}),
  ("bert", "blenderbot", {}),
  ("bert", "xglm", {}),
  ("electra", "electra", {}),
  ("distilbert", "gpt2", {}),
  ("albert", "electra", {"tie_word_embeddings": False}),
  ("roberta-prelayernorm", "roberta-prelayernorm", {}),
)
# Architectures that a pair cannot have in a role.
OTHER_ROLE = {
  Role.ENCODER: (
    "gpt2", "bart", "mbart", "pegasus", "marian", "blenderbot", "xglm"
  ),
  Role.DECODER: ("distilbert", "albert"),
}  # fmt: skip


def models() -> Iterator[tuple[str, FlaxEncoderDecoderModule]]:
  """A tiny model of each pair; between them every kind of leaf occurs."""
  for encoder, decoder, changes in PAIRS:
    config = EncDecConfig(
      ARCHS[encoder].stack_config(preset(encoder), Role.ENCODER),
      ARCHS[decoder].stack_config(preset(decoder) | changes, Role.DECODER),
      vocab_multiple=128,
    )
    yield f"{encoder} -> {decoder}", FlaxEncoderDecoderModule(config)
  attention = tuple(f"*/{name}" for name in ("query", "key", "value", "out"))
  targets = (*attention, "*/mlp/*")
  adapted = EncDecConfig(
    ARCHS["bert"].stack_config(preset("bert"), Role.ENCODER),
    ARCHS["gpt2"].stack_config(preset("gpt2"), Role.DECODER),
    lora=LoraConfig(rank=2, alpha=2.0, targets=targets, dora=True),
  )
  yield "bert -> gpt2, adapters", FlaxEncoderDecoderModule(adapted)


def full_size() -> Iterator[tuple[str, FlaxEncoderDecoderModule]]:
  """Each architecture beside itself, or beside a tiny BERT where it cannot."""
  for name, arch in ARCHS.items():
    for size in ("base", "large"):
      if size not in arch.PRESETS:
        continue
      sides = [_side(name, size, role) for role in Role]
      config = EncDecConfig(*sides)
      yield f"{name}:{size}", FlaxEncoderDecoderModule(config)


def _side(name: str, size: str, role: Role) -> StackConfig:
  if name in OTHER_ROLE[role]:
    return ARCHS["bert"].stack_config(preset("bert"), role)
  return ARCHS[name].stack_config(ARCHS[name].PRESETS[size], role)


def preset(name: str) -> dict:
  return dict(ARCHS[name].PRESETS["tiny"])


def leaves(module: FlaxEncoderDecoderModule) -> dict[str, jax.ShapeDtypeStruct]:
  flat, _ = jax.tree_util.tree_flatten_with_path(param_shapes(module))
  return {sharding.leaf_path(path): leaf for path, leaf in flat}


def render() -> str:
  """The golden file's text."""
  lines = []
  for name, module in itertools.chain(models(), full_size()):
    lines.append(f"# {name}")
    for path, leaf in sorted(leaves(module).items()):
      shape = ",".join(map(str, leaf.shape))
      axes = ",".join(axis or "-" for axis in sharding.logical_axes(path))
      lines.append(f"{path} {leaf.dtype}[{shape}] {axes}")
    lines.append("")
  return "\n".join(lines)


if __name__ == "__main__":
  GOLDEN.write_text(render())
