"""Does cuDNN's attention agree with XLA's, and what does each cost?

`gpu.py` prints it, before it trains with either.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def by_role(sizes: Any, roles: str) -> dict[str, dict[str, float]]:
  """Errors and milliseconds of both, by role: "self", "causal", "cross".

  Args:
    sizes: as `gpu_sides.Sizes`.
  """
  return {role: of_role(sizes, role) for role in roles.split(",")}


def of_role(sizes: Any, role: str) -> dict[str, float]:
  """Of self-attention, "causal" or "cross" on padded rows.

  An error is of the output and all gradients, the largest, as a part of the
  largest value that the same inputs give in float32.
  """
  import jax
  import jax.numpy as jnp

  generator = np.random.default_rng(0)
  queries = sizes.source if role == "self" else sizes.target
  keys = sizes.target if role == "causal" else sizes.source
  arrays = [
    jnp.asarray(
      generator.normal(size=(sizes.pairs, n, sizes.width // 64, 64)),
      jnp.bfloat16,
    )
    for n in (queries, keys, keys, queries)
  ]
  segments = [
    np.arange(n) < generator.integers(n // 2, n + 1, size=(sizes.pairs, 1))
    for n in (queries, keys)
  ]
  if role != "cross":
    segments[1] = segments[0]
  ids = [jnp.asarray(one, jnp.int32) for one in segments]
  runs = {
    side: attending(sizes, role == "causal", side) for side in ("xla", "cudnn")
  }
  with jax.default_matmul_precision("highest"):
    wanted = runs["xla"](ids, *(x.astype(jnp.float32) for x in arrays))
  found = {}
  for side, run in runs.items():
    got = run(ids, *arrays)
    found[side] = max(map(relative_error, got, wanted))
    begun = time.perf_counter()
    for _ in range(sizes.steps):
      got = run(ids, *arrays)
    jax.block_until_ready(got)
    passed = time.perf_counter() - begun
    found[f"{side} ms"] = passed / sizes.steps * 1e3
  # The control: neither an order nor the keys' lengths are told.
  untold = [ids[0], jnp.ones_like(ids[1])]
  out, *_ = attending(sizes, False, "xla")(untold, *arrays)
  found["control"] = relative_error(out, wanted[0])
  return found


def attending(sizes: Any, causal: bool, side: str) -> Callable[..., Any]:
  """Attention's output and gradients, jitted; padded queries give zeros."""
  import jax
  import jax.numpy as jnp

  from encdec.layers.kernels.cudnn import CudnnAttention
  from encdec.layers.kernels.xla import XlaAttention
  from encdec.types import AttentionMask

  on_gpu = sizes.platform == "cuda"
  # Elsewhere than on a GPU something stands in for the kernel.
  stand_in = functools.partial(
    jax.nn.dot_product_attention, implementation="xla"
  )
  cudnn = CudnnAttention() if on_gpu else CudnnAttention(stand_in)
  implementation = XlaAttention() if side == "xla" else cudnn

  @jax.jit
  def run(ids, q, k, v, cotangent):
    def shown(q, k, v):
      out, _ = implementation(
        q,
        k,
        v,
        AttentionMask(*ids, causal=causal),
        scale=q.shape[-1] ** -0.5,
        platform="gpu" if on_gpu else "cpu",
        rules=None,
        bias=None,
        softcap=None,
        sinks=None,
        dropout=None,
        return_weights=False,
      )
      return jnp.where(ids[0][..., None, None] > 0, out, 0)

    out, pullback = jax.vjp(shown, q, k, v)
    return out, *pullback(cotangent.astype(out.dtype))

  return run


def relative_error(got: Any, wanted: Any) -> float:
  got, wanted = (np.asarray(x.astype("float32")) for x in (got, wanted))
  return float(np.abs(got - wanted).max() / np.abs(wanted).max())
