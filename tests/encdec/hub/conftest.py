"""One tiny pair, made once: BERT to GPT-2, a layer each."""

import copy

import numpy as np
import pytest
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
