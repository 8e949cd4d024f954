"""The kernel of short rows, compiled for TPUs that are not here."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from encdec.layers.attention import attention
from encdec.layers.kernels.facts import AttentionDropout
from encdec.sharding import DEFAULT_RULES
from encdec.types import AttentionMask
from tests.train.test_mesh_topologies import ENVIRONMENT, pytestmark

__all__ = ["pytestmark"]


@pytest.mark.sample(2, group="compiled for accelerators")
# The largest logits, the longest rows, and tiles of one head, of two, of four
# and of none; v4 has the least of the memory that a kernel gets.
@pytest.mark.parametrize("chip", ["v5e:2x2", "v4:2x2x1"])
@pytest.mark.parametrize(
  ("queries", "keys", "heads", "width", "dtype"),
  [
    (512, 512, 12, 64, "float32"),
    (512, 512, 12, 64, "bfloat16"),
    (128, 2048, 4, 64, "bfloat16"),
    (2048, 128, 4, 64, "bfloat16"),
    (512, 512, 2, 256, "float32"),
    (256, 1024, 2, 128, "float32"),
    (512, 500, 4, 32, "bfloat16"),
    (500, 512, 1, 64, "bfloat16"),
  ],
)
def test_it_compiles_forward_and_backward(
  chip, queries, keys, heads, width, dtype
):
  call = (chip, queries, keys, heads, width, dtype)
  done = subprocess.run(
    [sys.executable, __file__, *map(str, call)],
    capture_output=True,
    text=True,
    timeout=300,
    env=os.environ | ENVIRONMENT,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.split() == ["short_fwd", "short_bwd"]


def main(chip: str, *sizes: str) -> None:
  options = {} if chip.startswith("v5e") else {"chip_config_name": "megacore"}
  devices = topologies.get_topology_desc(
    platform="tpu", topology_name=chip, **options
  ).devices
  mesh = Mesh(
    np.asarray(devices[:1]).reshape(1, 1, 1, 1),
    ("slice", "data", "fsdp", "tensor"),
    axis_types=(AxisType.Auto,) * 4,
  )
  whole = NamedSharding(mesh, PartitionSpec())
  queries, keys, heads, width = (int(size) for size in sizes[:4])

  def array(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=whole)

  def loss(q, k, v, of_query, of_key):
    mask = AttentionMask(of_query, of_key, causal=queries == keys)
    out, _ = attention(
      q,
      k,
      v,
      mask,
      scale=0.3,
      platform="tpu",
      rules=DEFAULT_RULES,
      dropout=AttentionDropout("values", 0.1, jax.random.key(0), DEFAULT_RULES),
      implementation="short",
    )
    return jnp.sum(out.astype(jnp.float32) ** 2)

  q, k = (
    array((2, length, heads, width), sizes[4]) for length in (queries, keys)
  )
  ids = (array((2, length), jnp.int32) for length in (queries, keys))
  with jax.set_mesh(mesh):
    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(q, k, k, *ids)
    compiled = traced.lower(lowering_platforms=("tpu",)).compile()
  text = compiled.as_text()
  print(*(name for name in ("short_fwd", "short_bwd") if name in text))


if __name__ == "__main__":
  main(*sys.argv[1:])
