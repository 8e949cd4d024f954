"""Hugging Face's names, files and classes around the model.

No other part of encdec imports transformers or huggingface_hub.
"""

# ruff: noqa: F401

from encdec.hub.card import Card
from encdec.hub.configs import (
  compose_config,
  composite_config,
  decoder_bos,
  encdec_config,
  generation_config_of,
  load_side_config,
  set_dropout,
  set_init_std,
  set_vocab_size,
  sides_of,
  stack_config,
  token_sources,
)
from encdec.hub.facade.model import FlaxEncoderDecoderModel
from encdec.hub.facade.resize import NewRows, resize_vocabulary
from encdec.hub.facade.search_options import search_options
from encdec.hub.facade.supported_options import (
  SUPPORTED,
  is_option,
  is_supported,
  options_of,
)
from encdec.hub.files.atomic_write import PARTIAL
from encdec.hub.files.mmap import WeightFileError
from encdec.hub.files.repo import HubError, Origin
from encdec.hub.peft import save_adapters
from encdec.hub.saved_pair import (
  SavedPair,
  is_pair,
  pair_params,
  read_pair,
  target_tokenizer_of,
)
from encdec.hub.saving import push_folder, save_folder
from encdec.hub.weights.compose import initial_params, load_params
from encdec.hub.weights.conversion import hub_from_tree, tree_from_hub
from encdec.hub.weights.layer_subset import choose_layers
from encdec.hub.weights.legacy_tree import from_flax457, to_flax457
from encdec.hub.weights.loading_report import (
  LoadingError,
  LoadingReport,
  Remedies,
)
from encdec.hub.weights.pooler import fit_pooler_to
from encdec.hub.weights.position_tables import EXTENSIONS, set_max_positions
