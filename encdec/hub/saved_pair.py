"""Reads a saved pair: its config, generation config and tensors."""

import dataclasses
import os
import warnings
from typing import Any

from jaxtyping import Array, Key
from transformers import EncoderDecoderConfig, GenerationConfig

from encdec.config import Role, Share
from encdec.hub import configs
from encdec.hub.files.repo import Origin
from encdec.hub.weights.compose import fit_checkpoint
from encdec.hub.weights.conversion import Checkpoint, load
from encdec.hub.weights.loading_report import OF_PYTHON, LoadingReport, Remedies
from encdec.hub.weights.pooler import fit_pooler
from encdec.hub.weights.tying import detect_share
from encdec.model import FlaxEncoderDecoderModule
from encdec.sharing import collapse, expand
from encdec.types import Params

_TARGET = "target_tokenizer"


@dataclasses.dataclass(frozen=True)
class SavedPair:
  """The contents of a pair's files.

  Attributes:
    generation: of generation_config.json; without one, what PyTorch reads from
      config.json.
    derived: whether it came from config.json.
    share: what its sides share.
  """

  config: EncoderDecoderConfig
  generation: GenerationConfig
  derived: bool
  share: Share
  checkpoint: Checkpoint


def read_pair(
  origin: Origin, config: EncoderDecoderConfig | None = None
) -> SavedPair:
  """The pair in a folder or on the Hub; its tensors are mapped, not read.

  Args:
    config: in place of its config.json.

  Raises:
    HubError: it cannot be reached or has no config.
    WeightFileError: it has no weights that can be read.
    ValueError: it is no pair, an architecture cannot take its side, or the
      sides cannot share what the config says.
  """
  if config is None:
    config = configs.composite_config(configs.read_config(origin), origin.name)
  generation, derived = configs.read_generation_config(origin, config)
  # Sides that the config calls shared and that cannot be are an error.
  configs.encdec_config(config, share=configs.tied_by(config))
  checkpoint = Checkpoint(origin.weights(), origin.name)
  fit_pooler(configs.sides_of(config)[0], checkpoint)
  share = _share_of(checkpoint, config)
  return SavedPair(config, generation, derived, share, checkpoint)


def is_pair(name: str, **where: Any) -> bool:
  """Whether a folder or Hub id holds a saved pair."""
  values = Origin(name, **where).json("config.json") or {}
  return isinstance(values.get("encoder"), dict) and "decoder" in values


def target_tokenizer_of(origin: Origin) -> str:
  """The subfolder with the target's tokenizer; "" where there is one for both.

  Raises:
    HubError: the pair cannot be reached.
  """
  subfolder = os.path.join(origin.subfolder, _TARGET)
  own = dataclasses.replace(origin, subfolder=subfolder)
  return "" if own.file("tokenizer_config.json") is None else subfolder


def pair_params(
  module: FlaxEncoderDecoderModule,
  pair: SavedPair,
  key: Key[Array, ""],
  *,
  position_extension: str | None = None,
  remedies: Remedies = OF_PYTHON,
) -> tuple[Params, LoadingReport]:
  """A saved pair's parameters, for a module that may differ in length.

  Args:
    module: of the pair's config, but for longer tables of positions and for
      what its sides share: less than was saved, or what is equal in it.
    key: of nothing but what the files of such a pair may lack.
    position_extension: see `position_tables.EXTENSIONS`; None: a longer table
      is an error.
    remedies: what errors advise.

  Raises:
    LoadingError: the files lack tensors or have others; sides that shall share
      differ.
  """
  wanted, checkpoint = module.config, pair.checkpoint
  for side, role in zip(configs.sides_of(pair.config), Role, strict=True):
    checkpoint = fit_checkpoint(
      checkpoint,
      configs.stack_config(side, role),
      getattr(wanted, role),
      extension=position_extension,
      option=remedies.extension,
    )
  order = list(Share)
  share = max(pair.share, wanted.share, key=order.index)
  read = dataclasses.replace(wanted, share=share)
  params, report = load(
    module.clone(config=read), [checkpoint], key, remedies=remedies
  )
  return collapse(expand(params, read), wanted), report


def _share_of(checkpoint: Checkpoint, hub: EncoderDecoderConfig) -> Share:
  """What the sides share: as the config says, or as equal tensors show."""
  tied = getattr(hub, "tie_encoder_decoder", None)
  if tied is False:
    return Share.NONE
  config = configs.encdec_config(hub)
  said = getattr(hub, "share", "all" if tied else None)
  shared = detect_share(
    checkpoint.by_name(config),
    config,
    most=Share(said or "all"),
    tied=said is not None,
  )
  if said is not None and shared != said:
    warnings.warn(
      f"{checkpoint.where}: config.json says that the sides share "
      f"{said!r}, but their tensors differ: they share {str(shared)!r}",
      stacklevel=4,
    )
  return shared
