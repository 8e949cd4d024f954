"""Dropout stands where PyTorch's does, of each rate of the Hub configs."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.layers import dropout

# Rates that are looked at together: between them they hide nothing.
GROUPS = {
  "hidden": ("hidden_dropout_prob", "resid_pdrop", "dropout"),
  "attention": (
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "embd_pdrop",
    "attention_dropout",
  ),
  "activation": ("activation_dropout",),
}
RATE = 0.375


def _only(config, group):
  """A copy of a Hub config with these rates alone."""
  config = copy.deepcopy(config)
  for name in (name for names in GROUPS.values() for name in names):
    if hasattr(config, name):
      config.update({name: RATE if name in GROUPS[group] else 0.0})
  return config


def _dropping_all(model, sides):
  """PyTorch's model in training, all of what has the rate dropped."""
  config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
    *sides
  )
  made = transformers.EncoderDecoderModel(config)
  made.set_attn_implementation("eager")
  made.load_state_dict(model.state_dict())
  for module in made.modules():
    for name in ("p", "dropout", "activation_dropout"):
      if getattr(module, name, None) == RATE:
        setattr(module, name, 1.0)
  return made.train()


@functools.partial(jax.jit, static_argnames="module")
def _ours(module, params, source, target):
  ones = jnp.ones(source.shape, jnp.int32)
  positions = jnp.broadcast_to(jnp.arange(source.shape[1]), source.shape)
  return module.apply(
    {"params": params},
    source, ones, positions, target, ones, positions,
    dropout_key=jax.random.key(0),
    output_hidden_states=True,
  )  # fmt: skip


PAIRS = [
  "albert-electra",
  "electra-bert",
  "distilbert-gpt2",
  "prelayernorm-prelayernorm",
  "bert-bart",
  "bert-xglm",
  "bert-mbart",
  "roberta-pegasus",
  "bert-marian",
  "bert-blenderbot",
]


@pytest.mark.sample(5)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", PAIRS)
def test_sites(pairs, assert_close, monkeypatch, name, group):
  pair = pairs(name)
  hub = pair.torch_model.config
  sides = [_only(side, group) for side in (hub.encoder, hub.decoder)]
  config = EncDecConfig(
    *(
      ARCHS[side.model_type].stack_config(side.to_dict(), role)
      for side, role in zip(sides, ("encoder", "decoder"), strict=True)
    ),
    vocab_multiple=pair.config.vocab_multiple,
  )
  rng = np.random.default_rng(0)
  source, target = rng.integers(5, 50, (2, 3, 7)).astype(np.int32)
  with torch.no_grad():
    theirs = _dropping_all(pair.torch_model, sides)(
      input_ids=torch.tensor(source).long(),
      decoder_input_ids=torch.tensor(target).long(),
      output_hidden_states=True,
    )
  monkeypatch.setattr(
    dropout, "keep_mask", lambda key, shape, *rest: jnp.zeros(shape, bool)
  )
  ours = _ours(
    pair.module.clone(config=config, attention_dropout="weights"),
    pair.params,
    jnp.asarray(source),
    jnp.asarray(target),
  )
  for mine, referee in (
    (ours.encoder.hidden_states, theirs.encoder_hidden_states),
    (ours.decoder.hidden_states, theirs.decoder_hidden_states),
  ):
    for layer, (a, b) in enumerate(zip(mine, referee, strict=True)):
      assert_close(a, b, name=f"{name} {group} hidden state {layer}")
