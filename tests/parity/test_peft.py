"""The folder of adapters, as PEFT loads it over PyTorch's pair."""

import dataclasses
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors import safe_open

from encdec import adapters, hub
from encdec.adapters import LoraConfig
from encdec.sharing import expand

ATTENTION = ("*/query", "*/value", "*/out", "*/mlp/*")
CROSS = ("*/cross_attention*",)
# Name of the pair, what its sides share, targets, what is trained whole, DoRA.
CASES = {
  "gpt2": ("bert-gpt2", "none", ATTENTION, CROSS, False),
  "gpt2-dora": ("bert-gpt2", "none", ATTENTION, CROSS, True),
  # Of fused kernels some are adapted.
  "gpt2-some": (
    "bert-gpt2",
    "none",
    ("decoder/*/value", "decoder/*/cross_attention/out"),
    (),
    True,
  ),
  # Of two fused kernels one is adapted, the other is trained whole.
  "gpt2-mixed": (
    "bert-gpt2",
    "none",
    ("decoder/*/value",),
    ("decoder/*/cross_attention/key/*",),
    False,
  ),
  "shared": ("bertgeneration-bertgeneration", "all", ATTENTION, CROSS, False),
  "shared-dora": (
    "bertgeneration-bertgeneration",
    "all",
    ATTENTION,
    CROSS,
    True,
  ),
  "widths": ("bert-bert-widths", "none", ("*/key",), (), False),
}


def _adapted(pair, lora):
  """The pair's config and parameters with adapters that are not zero."""
  config = dataclasses.replace(pair.config, lora=lora)
  params = adapters.add(pair.params, lora, jax.random.key(0))
  rng = np.random.default_rng(0)

  def move(path, leaf):
    at = "/".join(key.key for key in path)
    if lora.is_base(at):
      return leaf
    return leaf + rng.normal(size=leaf.shape, scale=0.1).astype(np.float32)

  params = jax.tree_util.tree_map_with_path(move, params)
  return config, params


def _logits(model, inputs):
  with torch.no_grad():
    return model(
      input_ids=torch.tensor(inputs.tokens).long(),
      attention_mask=torch.tensor(inputs.mask).long(),
      decoder_input_ids=torch.tensor(inputs.decoder_tokens).long(),
      decoder_attention_mask=torch.tensor(inputs.decoder_mask).long(),
    ).logits.numpy()


@functools.partial(jax.jit, static_argnames="module")
def _ours(module, params, tokens, mask, decoder_tokens, decoder_mask):
  apply = functools.partial(
    module.apply, {"params": expand(params, module.config)}
  )
  places = lambda ids: jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
  encoded = apply(
    tokens=tokens,
    segments=mask,
    positions=places(tokens),
    query_segments=jnp.ones_like(mask),
    method="encode",
  )
  decoded = apply(
    tokens=decoder_tokens,
    segments=decoder_mask,
    positions=places(decoder_tokens),
    encoder_states=encoded.states,
    encoder_segments=mask,
    query_segments=jnp.ones_like(decoder_mask),
    method="decode_states",
  )
  return apply(decoded.states, method="head")


def _load(base, folder):
  """PEFT's model; what it misses in the folder would be a warning."""
  with warnings.catch_warnings():
    for known in (
      # A pair may have both Linear and Conv1D, of which PEFT tells.
      "fan_in_fan_out",
      # PEFT's own calls.
      "`is_gradient_checkpointing`",
    ):
      warnings.filterwarnings("ignore", message=known)
    return peft.PeftModel.from_pretrained(base, folder).eval()


@pytest.mark.parametrize("case", CASES)
def test_peft_gives_our_logits(
  case, pairs, make_inputs, assert_close, tmp_path
):
  name, share, targets, unfrozen, dora = CASES[case]
  pair = pairs(name, share=share)
  lora = LoraConfig(2, 8.0, targets, dora, unfrozen)
  config, params = _adapted(pair, lora)
  hub_config = pair.torch_model.config
  hub.save_folder(tmp_path / "base", pair.params, hub_config)
  hub.save_adapters(tmp_path / "adapters", params, hub_config, lora)
  base = transformers.EncoderDecoderModel.from_pretrained(
    tmp_path / "base", attn_implementation="eager"
  ).eval()
  inputs = make_inputs(config, "right")
  before = _logits(base, inputs)
  model = _load(base, tmp_path / "adapters")
  with safe_open(tmp_path / "adapters/adapter_model.safetensors", "pt") as file:
    assert set(file.keys()) == set(peft.get_peft_model_state_dict(model))
  module = pair.module.clone(config=config)
  ours = _ours(module, params, **vars(inputs))
  real = inputs.decoder_mask.astype(bool)
  ours = np.asarray(ours)[..., : before.shape[-1]]
  assert_close(_logits(model, inputs), ours, real)
  assert np.abs(before - ours)[real].max() > 0.01
  assert_close(_logits(model.merge_and_unload(), inputs), ours, real)
