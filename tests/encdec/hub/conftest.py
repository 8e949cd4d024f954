"""Models that are made once: a tiny pair, PyTorch's and the old classes'."""

import copy
import tarfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers

from encdec import FlaxEncoderDecoderModel
from encdec.hub import compose_config

BERT = {
  "vocab_size": 37,
  "hidden_size": 16,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "intermediate_size": 24,
  "max_position_embeddings": 40,
}
GPT2 = {
  "vocab_size": 41,
  "n_embd": 16,
  "n_layer": 1,
  "n_head": 2,
  "n_positions": 40,
  "bos_token_id": 3,
  "eos_token_id": 4,
}


@pytest.fixture(scope="session")
def random_model(random_params):
  """`random_model(config, seed=0)`: no two rows are alike, nor of a bias.

  Of its own numbers, since an initialiser takes longest to compile.
  """

  def make(config, seed=0, std=0.1, **options):
    model = FlaxEncoderDecoderModel(config, _do_init=False, **options)
    params = random_params(model.params_shape_tree, std, seed)
    rng = np.random.default_rng(seed + 1)
    params = jax.tree.map(
      lambda leaf: (
        leaf + (std * rng.normal(size=leaf.shape)).astype(leaf.dtype)
      ),
      params,
    )
    model._has_params = True
    model.params = params
    return model

  return make


@pytest.fixture
def tiny_config():
  """A pair's config that a test may change."""
  return compose_config(
    transformers.BertConfig(**BERT), transformers.GPT2Config(**GPT2)
  )


@pytest.fixture(scope="session")
def _made():
  config = compose_config(
    transformers.BertConfig(**BERT), transformers.GPT2Config(**GPT2)
  )
  return FlaxEncoderDecoderModel(config)


@pytest.fixture
def tiny(_made):
  """The pair with random parameters; a test may change it."""
  model = copy.copy(_made)
  model._config = copy.deepcopy(_made.config)
  model.generation_config = copy.deepcopy(_made.generation_config)
  return model


@pytest.fixture(scope="session")
def batch():
  """Source and target ids of two rows."""
  rng = np.random.default_rng(0)
  return (
    rng.integers(5, 37, (2, 6)).astype(np.int32),
    rng.integers(5, 41, (2, 4)).astype(np.int32),
  )


_NARROW = {**BERT, "embedding_size": 12}
_DISTILBERT = {
  "vocab_size": 37,
  "dim": 16,
  "n_layers": 1,
  "n_heads": 2,
  "hidden_dim": 24,
}
_GPT2 = {"vocab_size": 41, "n_embd": 16, "n_layer": 1, "n_head": 2}
_CLASSES = {
  "bert": (transformers.BertModel, transformers.BertConfig, BERT),
  "bert-masked": (transformers.BertForMaskedLM, transformers.BertConfig, BERT),
  "bert-pretraining": (
    transformers.BertForPreTraining,
    transformers.BertConfig,
    BERT,
  ),
  "bert-classifier": (
    transformers.BertForSequenceClassification,
    transformers.BertConfig,
    BERT,
  ),
  "roberta-masked": (
    transformers.RobertaForMaskedLM,
    transformers.RobertaConfig,
    BERT,
  ),
  "electra-pretraining": (
    transformers.ElectraForPreTraining,
    transformers.ElectraConfig,
    _NARROW,
  ),
  "electra-masked": (
    transformers.ElectraForMaskedLM,
    transformers.ElectraConfig,
    _NARROW,
  ),
  "distilbert-masked": (
    transformers.DistilBertForMaskedLM,
    transformers.DistilBertConfig,
    _DISTILBERT,
  ),
  "albert-masked": (
    transformers.AlbertForMaskedLM,
    transformers.AlbertConfig,
    _NARROW,
  ),
  "albert-pretraining": (
    transformers.AlbertForPreTraining,
    transformers.AlbertConfig,
    _NARROW,
  ),
  "prelayernorm-masked": (
    transformers.RobertaPreLayerNormForMaskedLM,
    transformers.RobertaPreLayerNormConfig,
    BERT,
  ),
  "gpt2": (transformers.GPT2Model, transformers.GPT2Config, _GPT2),
  "gpt2-lm": (transformers.GPT2LMHeadModel, transformers.GPT2Config, _GPT2),
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
  """Folders that PyTorch wrote, and their models, by the names above."""
  torch.manual_seed(0)
  made = {}
  for name, (model_class, config_class, values) in _CLASSES.items():
    folder = tmp_path_factory.mktemp(name)
    model = model_class(config_class(**values, bos_token_id=3, eos_token_id=4))
    model.save_pretrained(folder)
    made[name] = (str(folder), model)
  return made


@pytest.fixture(scope="session")
def old(tmp_path_factory):
  """Folders of transformers' Flax and TensorFlow classes.

  `fixtures/old_weights.py` made them, and says how.
  """
  folder = tmp_path_factory.mktemp("old")
  # Python 3.11 has filters from 3.11.4 on.
  checked: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
  for framework in ("flax", "tf"):
    archive = Path(__file__).parent / f"fixtures/{framework}.tar.xz"
    with tarfile.open(archive) as tar:
      tar.extractall(folder, **checked)
  return folder
