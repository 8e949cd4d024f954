"""The tree of transformers 4's Flax classes, converted and converted back."""

import flax
import jax
import numpy as np
import pytest

from encdec.hub import (
  LoadingError,
  compose_config,
  from_flax457,
  load_side_config,
  to_flax457,
)


def _equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_old_tree_and_back(tiny):
  old = to_flax457(tiny.params, tiny.config)
  # safetensors writes a view's bytes as they lie in memory.
  assert all(leaf.flags.c_contiguous for leaf in jax.tree.leaves(old))
  layer = old["encoder"]["encoder"]["layer"]["0"]
  ours = tiny.params["encoder"]["layers"]
  np.testing.assert_array_equal(
    layer["intermediate"]["dense"]["kernel"], ours["mlp"]["up"]["kernel"][0]
  )
  query = ours["self_attention"]["query"]["kernel"][0]
  np.testing.assert_array_equal(
    layer["attention"]["self"]["query"]["kernel"], query.reshape(16, 16)
  )
  block = old["decoder"]["transformer"]["h"]["0"]
  # GPT-2's dense layers are stored [out, in] there, three in one.
  assert block["attn"]["c_attn"]["kernel"].shape == (48, 16)
  assert set(block) == {
    "ln_1", "attn", "ln_2", "crossattention", "ln_cross_attn", "mlp"
  }  # fmt: skip
  assert set(block["ln_1"]) == {"scale", "bias"}
  assert set(old["decoder"]["transformer"]["wte"]) == {"embedding"}
  assert "lm_head" not in old["decoder"]
  _equal(from_flax457(old, tiny.config), tiny.params)
  _equal(from_flax457(flax.core.freeze(old), tiny.config), tiny.params)
  del block["ln_1"]["scale"]
  with pytest.raises(LoadingError, match=r"h\.0\.ln_1\.weight"):
    from_flax457(old, tiny.config)


@pytest.mark.parametrize("arch", ["electra", "camembert"])
@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_a_pair_that_had_no_old_tree_is_refused(side, arch):
  sides = {"encoder": "bert", "decoder": "gpt2"} | {side: arch}
  config = compose_config(
    *(load_side_config(f"{arch}:tiny") for arch in sides.values())
  )
  with pytest.raises(ValueError, match=rf"{arch}: transformers 4\.57 built"):
    to_flax457({}, config)
