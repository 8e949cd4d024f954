"""cuDNN's attention by a kernel in its place, told the same, against XLA's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.layers import attention as attention_lib
from encdec.layers.kernels import cudnn, select
from encdec.layers.kernels.facts import AttentionDropout
from encdec.layers.kernels.xla import XlaAttention
from encdec.sharding import DEFAULT_RULES
from encdec.types import AttentionMask, RowLayout
from train.mesh import MeshConfig, make_mesh

B, T, S, H, G, K = 4, 5, 7, 4, 2, 8
OPTIONS = {
  "scale": 0.3,
  "platform": "gpu",
  "bias": None,
  "softcap": None,
  "sinks": None,
  "return_weights": False,
}
DROPOUT = AttentionDropout("values", 0.3, jax.random.key(3), DEFAULT_RULES)


@jax.custom_vjp
def _read(x, real):
  """What a kernel reads; to the gradient of what it ignores it writes NaN."""
  return jnp.where(real[..., None, None], x, jnp.nan_to_num(x))


def _write_back(real, grad):
  return jnp.where(real[..., None, None], grad, jnp.nan), None


_read.defvjp(lambda x, real: (_read(x, real), real), _write_back)


def _kernel(
  query,
  key,
  value,
  *,
  scale,
  is_causal,
  query_seq_lengths,
  key_value_seq_lengths,
):
  """Attention within the lengths that it is told; NaN elsewhere."""
  queries, keys = query.shape[1], key.shape[1]
  real = [jnp.ones((query.shape[0], n), bool) for n in (queries, keys)]
  if query_seq_lengths is not None:
    real = [
      jnp.arange(n)[None] < lengths[:, None]
      for n, lengths in (
        (queries, query_seq_lengths),
        (keys, key_value_seq_lengths),
      )
    ]
  query, key, value = (
    _read(x, row)
    for x, row in ((query, real[0]), (key, real[1]), (value, real[1]))
  )
  key, value = (
    jnp.repeat(x, query.shape[2] // x.shape[2], axis=2) for x in (key, value)
  )
  seen = real[1][:, None, None]
  if is_causal:
    order = jnp.arange(queries)[:, None] >= jnp.arange(keys)[None]
    seen = seen & order[None, None]
  logits = scale * jnp.einsum("bthk,bshk->bhts", query, key)
  weights = jax.nn.softmax(jnp.where(seen, logits, -jnp.inf), axis=-1)
  out = jnp.einsum("bhts,bshk->bthk", weights, value)
  return jnp.where(real[0][..., None, None], out, jnp.nan)


def _segments(width, *lengths):
  return (jnp.arange(width)[None] < jnp.array(lengths)[:, None]).astype(int)


TARGETS, SOURCES = _segments(T, 5, 3, 1, 0), _segments(S, 7, 2, 5, 0)
MASKS = {
  "padded": AttentionMask(SOURCES, SOURCES),
  "causal": AttentionMask(TARGETS, TARGETS, causal=True),
  "cross": AttentionMask(TARGETS, SOURCES),
  "whole": AttentionMask(),
}


def _arrays(mask):
  queries, keys = T, S
  if mask.query_segments is not None:
    queries, keys = mask.query_segments.shape[1], mask.key_segments.shape[1]
  rng = np.random.default_rng(0)
  shapes = ((queries, H), (keys, G), (keys, G), (queries, H))
  return [
    jnp.asarray(rng.normal(size=(B, *shape, K)), jnp.float32)
    for shape in shapes
  ]


def _attend(implementation, q, k, v, weights, mask, **options):
  """The output of real queries, and the gradient of its sum by `weights`."""
  real = jnp.ones(q.shape[:2], bool)
  if mask.query_segments is not None:
    real = mask.query_segments != 0

  def weighted(q, k, v):
    options_ = {"rules": None, "dropout": None, **OPTIONS, **options}
    out, _ = implementation(q, k, v, mask, **options_)
    shown = jnp.where(real[..., None, None], out, 0.0)
    return jnp.sum(shown * weights), (shown, out)

  value_and_grad = jax.value_and_grad(weighted, (0, 1, 2), has_aux=True)
  (_, (shown, out)), grads = jax.jit(value_and_grad)(q, k, v)
  assert np.isfinite(out).all()
  return shown, *grads


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("dropout", [None, DROPOUT], ids=["", "dropout"])
def test_lengths_tell_what_segments_do(name, dropout):
  mask = MASKS[name]
  arrays = _arrays(mask)
  found, expected = (
    _attend(implementation, *arrays, mask, dropout=dropout)
    for implementation in (cudnn.CudnnAttention(_kernel), XlaAttention())
  )
  whole = MASKS["causal" if name == "whole" else "whole"]
  if name == "whole":
    arrays = _arrays(whole)
  control = _attend(XlaAttention(), *arrays, whole, dropout=dropout)
  for part, same, other in zip(found, expected, control, strict=True):
    np.testing.assert_allclose(part, same, atol=1e-5)
    assert part.shape != other.shape or np.abs(same - other).max() > 1e-2


def test_on_a_mesh_it_is_what_it_is_on_one_device():
  mask = MASKS["cross"]
  attend = functools.partial(
    _attend,
    cudnn.CudnnAttention(_kernel),
    *_arrays(mask),
    mask,
    rules=DEFAULT_RULES,
    dropout=DROPOUT,
  )
  alone = attend()
  with jax.set_mesh(make_mesh(MeshConfig(1, 2, 2, 2), jax.devices()[:8])):
    split = attend()
  for a, b in zip(alone, split, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  assert len(split[0].sharding.device_set) == 8


@pytest.fixture
def stand_in(monkeypatch):
  """In the table by cuDNN's name; what it was called with."""
  calls = []

  def kernel(*arrays, **options):
    calls.append(options)
    return _kernel(*arrays, **options)

  table = {**select.IMPLEMENTATIONS, "cudnn": cudnn.CudnnAttention(kernel)}
  monkeypatch.setattr(select, "IMPLEMENTATIONS", table)
  return calls


def _call(mask, dtype=jnp.bfloat16, platform="gpu", **options):
  q, k, v, _ = (x.astype(dtype) for x in _arrays(mask))
  return attention_lib.attention(
    q, k, v, mask, scale=1.0, platform=platform, **options
  )


@pytest.mark.parametrize("name", ["padded", "causal", "cross"])
def test_auto_takes_it_for_rows_of_one_text_on_gpus(name, stand_in):
  mask = MASKS[name].replace(row_layout=RowLayout.SINGLE)
  _call(mask)
  assert [call["is_causal"] for call in stand_in] == [mask.causal]
  _call(mask, platform="cpu")
  _call(mask, jnp.float32)
  _call(MASKS[name])
  assert len(stand_in) == 1


@pytest.mark.parametrize(
  "message, options",
  [
    ("a kernel for NVIDIA GPUs", {"platform": "tpu"}),
    ("not in float32", {"dtype": jnp.float32}),
    ("it does not cap logits", {"softcap": 1.0}),
    ("it has no windows", {"mask": AttentionMask(window=(2, None))}),
    ("a row's own keys", {"mask": AttentionMask(causal=True)}),
    (
      "rows hold several texts",
      {"mask": MASKS["cross"].replace(row_layout=RowLayout.PACKED)},
    ),
    ("nothing promises that padding", {"mask": MASKS["cross"]}),
    ("it returns no weights", {"return_weights": True}),
  ],
)
def test_refusals(message, options, stand_in):
  options = {"mask": AttentionMask(), **options}
  with pytest.raises(ValueError, match=f"'cudnn' cannot serve: .*{message}"):
    _call(implementation="cudnn", **options)
  assert not stand_in


def test_head_widths(stand_in):
  def attend(width):
    x = jnp.zeros((1, 2, 1, width), jnp.bfloat16)
    attention_lib.attention(
      x,
      x,
      x,
      AttentionMask(),
      scale=1.0,
      platform="gpu",
      implementation="cudnn",
    )

  attend(128)
  for width in (12, 136):
    with pytest.raises(ValueError, match=f"heads are {width} wide"):
      attend(width)


def test_without_cudnn_it_is_refused_and_not_traced():
  """As on this machine, which JAX asks for programs of other machines too."""
  assert "JAX cannot trace it here" in (cudnn._missing() or "")
  with pytest.raises(ValueError, match="trace it here: cuDNN is not"):
    _call(AttentionMask(), implementation="cudnn")
  _call(AttentionMask())
