"""What every fused kernel of attention refuses, by the facts of a call."""

import contextlib

import jax
import jax.numpy as jnp
import pytest

from encdec.layers.attention import attention
from encdec.layers.kernels.facts import AttentionDropout
from encdec.sharding import DEFAULT_RULES, Rules
from encdec.types import AttentionMask, KeyBlocks
from train.mesh import MeshConfig, make_mesh

ROW = jnp.arange(3)[None].repeat(4, 0)
WHOLE_KEYS = Rules(
  tuple(
    (axis, () if axis == "kv_heads" else over)
    for axis, over in DEFAULT_RULES.table
  )
)
KEYS = KeyBlocks(jnp.zeros((4, 2, 8, 3)), 3)


def _attend(mesh=None, **options):
  q = jnp.zeros((4, 3, 2, 8))
  call = {"q": q, "k": q, "v": q, "mask": AttentionMask(), **options}
  with contextlib.ExitStack() as stack:
    if mesh is not None:
      devices = jax.devices()[: mesh[0] * mesh[1]]
      sizes = MeshConfig(data=mesh[0], tensor=mesh[1])
      stack.enter_context(jax.set_mesh(make_mesh(sizes, devices)))
    return attention(**call, scale=1.0, platform="cpu", implementation="splash")


@pytest.mark.parametrize(
  "message, options",
  [
    (
      "it takes no mask that is written out",
      {"mask": AttentionMask(dense=jnp.ones((4, 1, 3, 3), bool))},
    ),
    ("it adds no bias", {"bias": jnp.zeros((4, 2, 3, 3))}),
    ("it has no sinks", {"sinks": jnp.zeros((2,))}),
    ("it returns no weights", {"return_weights": True}),
    (
      "it drops values, not weights",
      {"dropout": AttentionDropout("weights", 0.1, jax.random.key(0), None)},
    ),
    ("keys lie in blocks", {"k": KEYS}),
    ("a row has one query", {"q": jnp.zeros((4, 1, 2, 8))}),
    (
      "the order of tokens is not that in the row",
      {"mask": AttentionMask(query_positions=ROW, causal=True)},
    ),
    ("a mesh is set, but no rules say where", {"mesh": (2, 1)}),
    (
      "the mesh splits 4 rows into 8 parts",
      {"mesh": (8, 1), "rules": DEFAULT_RULES},
    ),
    (
      "the mesh splits 2 heads into 4 parts",
      {"mesh": (1, 4), "rules": DEFAULT_RULES},
    ),
    (
      "a device would hold heads without their keys: sharding.heads and",
      {"mesh": (1, 2), "rules": WHOLE_KEYS},
    ),
  ],
)
def test_refusals(message, options):
  with pytest.raises(ValueError, match=f"'splash' cannot serve: {message}"):
    _attend(**options)


def test_positions_that_nothing_asks_for_are_no_reason():
  mask = AttentionMask(query_positions=ROW)
  assert _attend(mask=mask)[0].shape == (4, 3, 2, 8)
