"""The dtype of parameters: as asked, or as the file's."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch

from encdec import FlaxEncoderDecoderModel
from encdec.hub import to_flax457
from encdec.hub.files import weight_files

load = FlaxEncoderDecoderModel.from_pretrained
compose = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained


def _dtypes(model) -> set[str]:
  return {leaf.dtype.name for leaf in jax.tree.leaves(model.params)}


def _cast(tree, dtype):
  return jax.tree.map(lambda leaf: np.asarray(leaf.astype(dtype)), tree)


@pytest.mark.sample(1)
@pytest.mark.parametrize("held", ["float32", "bfloat16", "float16"])
def test_files_keep_or_cast_their_dtype(tiny, batch, tmp_path, held):
  params = jax.tree.map(lambda leaf: leaf.astype(held), tiny.params)
  tiny.save_pretrained(tmp_path, params)
  same = load(tmp_path, param_dtype="auto")
  assert _dtypes(same) == {held}
  jax.tree.map(np.testing.assert_array_equal, same.params, params)
  for asked in (jnp.float32, "bfloat16"):
    model = load(tmp_path, param_dtype=asked)
    assert _dtypes(model) == {jnp.dtype(asked).name}
    jax.tree.map(
      np.testing.assert_array_equal, model.params, _cast(params, asked)
    )
  assert _dtypes(load(tmp_path)) == {"float32"}
  # Computation has a dtype of its own.
  logits = same(*batch[:1], decoder_input_ids=batch[1]).logits
  np.testing.assert_allclose(
    logits, tiny(batch[0], decoder_input_ids=batch[1]).logits, atol=0.05
  )


@pytest.mark.parametrize("name", ["pytorch_model.bin", "flax_model.msgpack"])
@pytest.mark.parametrize("held", ["bfloat16", "float16"])
def test_old_formats_keep_or_cast_their_dtype(tiny, tmp_path, held, name):
  params = jax.tree.map(lambda leaf: leaf.astype(held), tiny.params)
  tiny.save_pretrained(tmp_path, params)
  file = tmp_path / weight_files.SINGLE
  if name == "pytorch_model.bin":
    torch.save(safetensors.torch.load_file(file), tmp_path / name)
  else:
    old = to_flax457(params, tiny.config)
    (tmp_path / name).write_bytes(flax.serialization.to_bytes(old))
  file.unlink()
  for asked, dtype in (("auto", held), ("float32", "float32")):
    model = load(tmp_path, param_dtype=asked)
    assert _dtypes(model) == {dtype}
    jax.tree.map(
      np.testing.assert_array_equal, model.params, _cast(params, dtype)
    )


def test_composed_sides_have_one_dtype(tiny, tmp_path):
  params = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), tiny.params)
  for side, tree in (("encoder", params), ("decoder", tiny.params)):
    tiny.save_pretrained(tmp_path / side, tree, part=side)
  tiny.save_pretrained(tmp_path / "half", params, part="decoder")
  sides = str(tmp_path / "encoder"), str(tmp_path / "decoder")
  assert _dtypes(compose(*sides)) == {"float32"}
  assert _dtypes(compose(*sides, param_dtype="auto")) == {"float32"}
  assert _dtypes(compose(*sides, param_dtype="float16")) == {"float16"}
  halves = sides[0], str(tmp_path / "half")
  assert _dtypes(compose(*halves, param_dtype="auto")) == {"bfloat16"}
  for wrong in ("int8", "float64"):
    with pytest.raises(ValueError, match=r"param_dtype=.* must be one of"):
      compose(*sides, param_dtype=wrong)
