"""Hub names, files and classes: the only part that knows transformers."""

from encdec.hub.card import Card
from encdec.hub.configs import (
  compose_config,
  decoder_bos,
  encdec_config,
  generation_config_of,
  load_side_config,
  set_dropout,
  set_init_std,
  token_sources,
)
from encdec.hub.files import HubError
from encdec.hub.layers import choose_layers
from encdec.hub.loading import initial_params, load_params
from encdec.hub.mapped import WeightFileError
from encdec.hub.model import FlaxEncoderDecoderModel
from encdec.hub.old_tree import from_flax457, to_flax457
from encdec.hub.positions import EXTENSIONS, set_max_positions
from encdec.hub.report import LoadingError, LoadingReport
from encdec.hub.saving import push_folder, save_folder
from encdec.hub.weights import hub_from_tree, tree_from_hub

__all__ = [
  "EXTENSIONS",
  "Card",
  "FlaxEncoderDecoderModel",
  "HubError",
  "LoadingError",
  "LoadingReport",
  "WeightFileError",
  "choose_layers",
  "compose_config",
  "decoder_bos",
  "encdec_config",
  "from_flax457",
  "generation_config_of",
  "hub_from_tree",
  "initial_params",
  "load_params",
  "load_side_config",
  "push_folder",
  "save_folder",
  "set_dropout",
  "set_init_std",
  "set_max_positions",
  "to_flax457",
  "token_sources",
  "tree_from_hub",
]
