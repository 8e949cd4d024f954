"""The folder of adapters: its names and shapes; PEFT reads it in parity/."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file

from encdec import hub
from encdec.adapters import LoraConfig
from encdec.hub.configs import encdec_config
from encdec.model import FlaxEncoderDecoderModule, param_shapes


@pytest.fixture
def saved(tmp_path):
  """`saved(lora, dtype)`: config and tensors of a BERT and a GPT-2."""
  pair = hub.compose_config(
    transformers.BertConfig(
      vocab_size=13,
      hidden_size=8,
      num_hidden_layers=2,
      num_attention_heads=2,
      intermediate_size=12,
      max_position_embeddings=10,
    ),
    transformers.GPT2Config(
      vocab_size=13, n_embd=8, n_layer=2, n_head=2, n_inner=12, n_positions=10
    ),
  )

  def save(lora, dtype=np.float32):
    config = dataclasses.replace(encdec_config(pair), lora=lora)
    rng = np.random.default_rng(0)
    module = FlaxEncoderDecoderModule(config, param_dtype=dtype)
    params = jax.tree.map(
      lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype),
      param_shapes(module),
    )
    hub.save_adapters(tmp_path, params, pair, lora, base="a/pair")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    return json.loads((tmp_path / "adapter_config.json").read_text()), tensors

  return save


def test_a_fused_tensor_has_one_adapter_of_a_higher_rank(saved):
  config, tensors = saved(LoraConfig(2, 6.0, ("*/value", "decoder/*/up")))
  layers = [f"decoder.transformer.h.{i}" for i in range(2)]
  own = [f"{layer}.attn.c_attn" for layer in layers]
  cross = [f"{layer}.crossattention.c_attn" for layer in layers]
  ranks = dict.fromkeys(own, 6) | dict.fromkeys(cross, 4)
  assert config["rank_pattern"] == ranks
  alphas = dict.fromkeys(own, 18.0) | dict.fromkeys(cross, 12.0)
  assert config["alpha_pattern"] == alphas
  assert (config["r"], config["lora_alpha"]) == (2, 6.0)
  assert config["base_model_name_or_path"] == "a/pair"
  assert config["modules_to_save"] is None
  assert config["target_modules"] == sorted(
    [
      *own,
      *cross,
      *(f"{layer}.mlp.c_fc" for layer in layers),
      *(f"encoder.encoder.layer.{i}.attention.self.value" for i in range(2)),
    ]
  )
  at = f"base_model.model.{own[1]}"
  a, b = tensors[f"{at}.lora_A.weight"], tensors[f"{at}.lora_B.weight"]
  assert a.shape == (6, 8) and b.shape == (24, 6)
  assert np.count_nonzero(a[4:]) == 16 and not a[:4].any()
  assert np.count_nonzero(b[16:, 4:]) == 16 and np.count_nonzero(b) == 16


def test_what_is_trained_whole_is_saved_whole(saved):
  lora = LoraConfig(
    2, 2.0, ("encoder/*/out",), unfrozen=("decoder/*/cross_attention/key/*",)
  )
  config, tensors = saved(lora)
  fused = [f"decoder.transformer.h.{i}.crossattention.c_attn" for i in range(2)]
  assert config["modules_to_save"] == fused
  assert config["rank_pattern"] == {}
  for name in fused:
    assert tensors[f"base_model.model.{name}.weight"].shape == (8, 16)
    assert tensors[f"base_model.model.{name}.bias"].shape == (16,)


def test_what_pytorch_ties_is_refused(saved):
  lora = LoraConfig(2, 2.0, ("*/out",), unfrozen=("decoder/embeddings/*",))
  with pytest.raises(ValueError, match="embedding whole, which PyTorch holds"):
    saved(lora)


def test_adapters_are_float32_over_a_bfloat16_base(saved):
  lora = LoraConfig(
    2, 2.0, ("*/query",), dora=True, unfrozen=("*/cross_attention*",)
  )
  _, tensors = saved(lora, jnp.bfloat16)
  for name, tensor in tensors.items():
    adapts = ".lora_" in name
    assert tensor.dtype == (np.float32 if adapts else jnp.bfloat16), name
