"""Checkpoints become the parameter tree; what they lack is drawn."""

import jax
import numpy as np
import pytest
import transformers

from encdec import FlaxEncoderDecoderModel
from encdec.hub import (
  LoadingError,
)
from encdec.model import init_params

compose = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained


GPT2 = {"vocab_size": 41, "n_embd": 16, "n_layer": 1, "n_head": 2}


def test_cross_attention_is_the_modules_init(saved):
  one, two, other = (
    compose(saved["bert"][0], saved["gpt2-lm"][0], seed=seed)
    for seed in (0, 0, 1)
  )
  drawn = jax.jit(init_params, static_argnums=0)(one.module, jax.random.key(0))

  def cross(params):
    return params["decoder"]["layers"]["cross_attention"]["query"]["kernel"]

  np.testing.assert_array_equal(cross(one.params), cross(two.params))
  np.testing.assert_allclose(cross(one.params), cross(drawn), rtol=1e-6)
  assert not np.array_equal(cross(one.params), cross(other.params))


def test_half_a_cross_attention_is_an_error(saved, tmp_path):
  config = transformers.GPT2Config(**GPT2, add_cross_attention=True)
  model = transformers.GPT2LMHeadModel(config)
  model.save_pretrained(tmp_path)
  report = compose(saved["bert"][0], str(tmp_path)).loading_report
  assert not report.initialised
  state = model.state_dict()
  del state["transformer.h.0.crossattention.q_attn.weight"]
  model.save_pretrained(tmp_path, state_dict=state)
  with pytest.raises(LoadingError, match=r"lacks decoder.*q_attn\.weight"):
    compose(saved["bert"][0], str(tmp_path))
