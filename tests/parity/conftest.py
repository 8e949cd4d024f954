"""Random PyTorch pairs, every parameter perturbed, and the same pair as ours.

PyTorch's eager attention in float32 is the referee.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers

from encdec.archs import ARCHS
from encdec.config import EncDecConfig, Share
from encdec.hub.weights.conversion import tree_from_hub
from encdec.model import FlaxEncoderDecoderModule

# Tests run side by side, a process a core.
torch.set_num_threads(1)

START, END, PAD = 3, 4, 1


def _bert_like(cls, **overrides):
  return cls(
    **{
      "vocab_size": 53,
      "hidden_size": 32,
      "num_hidden_layers": 2,
      "num_attention_heads": 4,
      "intermediate_size": 48,
      "max_position_embeddings": 40,
      "pad_token_id": PAD,
      "bos_token_id": START,
      "eos_token_id": END,
      **overrides,
    }
  )


def _gpt2(**overrides):
  return transformers.GPT2Config(
    **{
      "vocab_size": 59,
      "n_embd": 32,
      "n_layer": 2,
      "n_head": 4,
      "n_positions": 40,
      "bos_token_id": START,
      "eos_token_id": END,
      **overrides,
    }
  )


def _seq2seq(cls, **overrides):
  """A decoder that PyTorch configures with its whole model."""
  return cls(
    **{
      "vocab_size": 59,
      "d_model": 32,
      # PyTorch sizes the decoder's cache by it.
      "encoder_layers": 3,
      "decoder_layers": 3,
      "encoder_attention_heads": 2,
      "decoder_attention_heads": 4,
      "encoder_ffn_dim": 40,
      "decoder_ffn_dim": 48,
      "max_position_embeddings": 40,
      "scale_embedding": True,
      "pad_token_id": PAD,
      "bos_token_id": START,
      "eos_token_id": END,
      "decoder_start_token_id": START,
      # An option of generation, which tests set for themselves.
      "forced_eos_token_id": None,
      **overrides,
    }
  )


def _xglm():
  return transformers.XGLMConfig(
    vocab_size=59,
    d_model=32,
    num_layers=3,
    attention_heads=4,
    ffn_dim=48,
    max_position_embeddings=40,
    pad_token_id=PAD,
    bos_token_id=START,
    eos_token_id=END,
    decoder_start_token_id=START,
  )


def _distilbert():
  return transformers.DistilBertConfig(
    vocab_size=53,
    dim=32,
    n_layers=2,
    n_heads=4,
    hidden_dim=48,
    max_position_embeddings=40,
    pad_token_id=PAD,
  )


_BERT, _ROBERTA = transformers.BertConfig, transformers.RobertaConfig
_GENERATION = transformers.BertGenerationConfig

# A function for each side, so that no test changes another's config.
PAIRS = {
  "bert-bert": (
    lambda: _bert_like(_BERT),
    lambda: _bert_like(_BERT, vocab_size=61, num_hidden_layers=3),
  ),
  "bert-gpt2": (lambda: _bert_like(_BERT), _gpt2),
  "roberta-roberta": (
    lambda: _bert_like(_ROBERTA),
    lambda: _bert_like(_ROBERTA),
  ),
  "roberta-gpt2": (lambda: _bert_like(_ROBERTA), _gpt2),
  "bertgeneration-bertgeneration": (
    lambda: _bert_like(_GENERATION),
    lambda: _bert_like(_GENERATION),
  ),
  "xlmr-camembert": (
    lambda: _bert_like(transformers.XLMRobertaConfig, vocab_size=67),
    lambda: _bert_like(transformers.CamembertConfig, hidden_act="gelu_new"),
  ),
  "camembert-xlmr": (
    lambda: _bert_like(transformers.CamembertConfig),
    lambda: _bert_like(transformers.XLMRobertaConfig, num_hidden_layers=1),
  ),
  "albert-electra": (
    lambda: _bert_like(
      transformers.AlbertConfig, embedding_size=24, num_hidden_layers=3
    ),
    lambda: _bert_like(transformers.ElectraConfig, embedding_size=20),
  ),
  "electra-bert": (
    lambda: _bert_like(
      transformers.ElectraConfig, embedding_size=40, vocab_size=57
    ),
    lambda: _bert_like(_BERT),
  ),
  "distilbert-gpt2": (_distilbert, _gpt2),
  "prelayernorm-prelayernorm": (
    lambda: _bert_like(transformers.RobertaPreLayerNormConfig),
    lambda: _bert_like(
      transformers.RobertaPreLayerNormConfig, num_hidden_layers=3
    ),
  ),
  "bert-bert-widths": (
    lambda: _bert_like(_BERT, hidden_size=24),
    lambda: _bert_like(_BERT),
  ),
  "roberta-gpt2-widths": (
    lambda: _bert_like(_ROBERTA, hidden_size=40),
    lambda: _gpt2(n_inner=56, scale_attn_by_inverse_layer_idx=True),
  ),
  "bert-bart": (
    lambda: _bert_like(_BERT),
    lambda: _seq2seq(transformers.BartConfig, scale_embedding=False),
  ),
  "bert-xglm": (lambda: _bert_like(_BERT), _xglm),
  "bert-mbart": (
    lambda: _bert_like(_BERT),
    lambda: _seq2seq(transformers.MBartConfig, activation_function="relu"),
  ),
  "roberta-pegasus": (
    lambda: _bert_like(_ROBERTA),
    lambda: _seq2seq(transformers.PegasusConfig),
  ),
  "bert-marian": (
    lambda: _bert_like(_BERT, hidden_size=24),
    lambda: _seq2seq(transformers.MarianConfig, activation_function="swish"),
  ),
  "bert-blenderbot": (
    lambda: _bert_like(_BERT),
    lambda: _seq2seq(
      transformers.BlenderbotConfig, encoder_no_repeat_ngram_size=0
    ),
  ),
}
# Those that all tests of generation draw from: the others differ from one of
# them in embeddings and norms alone.
GENERATING = tuple(PAIRS)[:-4]


@dataclasses.dataclass(frozen=True)
class Pair:
  """One model twice: PyTorch's and ours."""

  name: str
  torch_model: Any
  config: EncDecConfig
  module: FlaxEncoderDecoderModule
  params: Any


_HEAD_BIASES = (
  "cls.predictions.bias",
  "lm_head.bias",
  "generator_lm_head.bias",
)


def _perturb(model: torch.nn.Module, seed: int) -> None:
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for parameter in model.parameters():
      # Frozen are tables that PyTorch computes.
      if not parameter.requires_grad:
        continue
      noise = torch.randn(parameter.shape, generator=generator)
      parameter.add_(0.15 * noise)


def _raise_end(model: torch.nn.Module, amount: float) -> None:
  """Makes the end token plausible, as it is in a trained model."""
  decoder = model.decoder
  with torch.no_grad():
    for name, parameter in decoder.named_parameters():
      # A tied `decoder.bias` is one parameter with the bias.
      if name in _HEAD_BIASES:
        parameter[END] += amount
        return
    # There is no bias there: let the last norm's point at the token.
    row = decoder.lm_head.weight[END]
    # Random models of BART's kind repeat their last token until it is raised
    # by more.
    amount *= 1.0 if hasattr(decoder, "transformer") else 2.0
    bias = _last_norm(decoder.base_model).bias
    bias.add_(amount * row / row.square().sum())


def _last_norm(base: torch.nn.Module) -> torch.nn.Module:
  stack = getattr(base, "decoder", base)
  for name in ("ln_f", "layer_norm"):
    if hasattr(stack, name):
      return getattr(stack, name)
  return stack.layers[-1].final_layer_norm


def _share_all(model: torch.nn.Module) -> None:
  """Ties by hand: what both sides have is the encoder's."""
  encoder, decoder = model.encoder, model.decoder.base_model
  own = dict(encoder.named_parameters())
  for name, module in decoder.named_modules():
    for leaf in list(module._parameters):
      path = f"{name}.{leaf}" if name else leaf
      if path in own:
        module._parameters[leaf] = own[path]
  model.decoder.tie_weights()


@functools.cache
def make_pair(
  name: str,
  seed: int = 0,
  raise_end: float = 0.0,
  vocab_multiple: int = 16,
  share: str = "none",
) -> Pair:
  encoder, decoder = PAIRS[name]
  config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
    encoder(), decoder()
  )
  torch.manual_seed(seed)
  model = transformers.EncoderDecoderModel(config)
  model.set_attn_implementation("eager")
  model = model.eval().float()
  _perturb(model, seed)
  if share == "all":
    _share_all(model)
  elif share == "embeddings":
    table = model.encoder.get_input_embeddings()
    model.decoder.set_input_embeddings(table)
    model.decoder.tie_weights()
  if raise_end:
    _raise_end(model, raise_end)
  ours = EncDecConfig(
    *(
      ARCHS[side.model_type].stack_config(side.to_dict(), role)
      for side, role in (
        (config.encoder, "encoder"),
        (config.decoder, "decoder"),
      )
    ),
    share=Share(share),
    vocab_multiple=vocab_multiple,
  )
  tensors = {k: v.numpy() for k, v in model.state_dict().items()}
  tree, _ = tree_from_hub(ours, tensors)
  tree = jax.tree.map(jax.numpy.asarray, tree)
  return Pair(name, model, ours, FlaxEncoderDecoderModule(ours), tree)


@pytest.fixture(scope="session")
def pairs():
  """`pairs(name, seed=0, raise_end=0.0)` gives a `Pair`, made once.

  `pairs.names` are those that generation is compared on.
  """
  make_pair.names = GENERATING
  return make_pair


@dataclasses.dataclass(frozen=True)
class Inputs:
  """Ids and masks as Hugging Face takes them, numpy int32."""

  tokens: np.ndarray
  mask: np.ndarray
  decoder_tokens: np.ndarray
  decoder_mask: np.ndarray


def _side(rng, vocab_size: int, length: int, padding: str):
  tokens = rng.integers(5, vocab_size, (4, length)).astype(np.int32)
  mask = np.ones_like(tokens)
  for row, pads in enumerate((0, 1, 3, length - 2)):
    where = slice(0, pads) if padding == "left" else slice(length - pads, None)
    mask[row, where] = 0
  return np.where(mask == 1, tokens, PAD).astype(np.int32), mask


@pytest.fixture(scope="session")
def make_inputs():
  """`make_inputs(config, padding)`: four rows, three of them padded."""

  def make(config: EncDecConfig, padding: str, seed: int = 0) -> Inputs:
    rng = np.random.default_rng(seed)
    source = _side(rng, config.encoder.vocab_size, 9, padding)
    target = _side(rng, config.decoder.vocab_size, 7, padding)
    return Inputs(*source, *target)

  return make


@pytest.fixture(scope="session")
def assert_close():
  """The parity rule: 1e-4 max(1, max|b|), the median error a tenth of it."""

  def check(ours, theirs, where=None, name: str = "") -> None:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, (name, ours.shape, theirs.shape)
    assert np.isfinite(ours).all(), f"{name}: not finite"
    if where is not None:
      ours, theirs = ours[where], theirs[where]
    error = np.abs(ours - theirs)
    bound = 1e-4 * max(1.0, float(np.abs(theirs).max()))
    assert error.max() <= bound, f"{name}: {error.max():.2e} > {bound:.2e}"
    assert np.median(error) <= bound / 10, f"{name}: median too large"

  return check
