"""Saves a folder that PyTorch transformers loads, and uploads it to the Hub."""

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors
from transformers import (
  EncoderDecoderConfig,
  GenerationConfig,
  PretrainedConfig,
)

from encdec.archs import ARCHS
from encdec.hub.card import MARK, Card, render
from encdec.hub.configs import encdec_config, set_tied
from encdec.hub.files.atomic_write import PARTIAL, write_text
from encdec.hub.files.repo import HTTPError, HubError, first_line
from encdec.hub.files.safetensors_writer import parse_size, write_weights
from encdec.hub.weights.conversion import tensors_to_write
from encdec.sharing import share_of
from encdec.special_tokens import SpecialTokens
from encdec.types import Params


def save_folder(
  folder: str | Path,
  params: Params,
  hub_config: EncoderDecoderConfig,
  *,
  tokens: SpecialTokens | None = None,
  generation: Mapping[str, Any] | None = None,
  source_tokenizer: Any = None,
  target_tokenizer: Any = None,
  card: Card | None = None,
  max_shard_size: int | str = "10GB",
  unread: Mapping[str, Any] | None = None,
) -> None:
  """Writes config, generation config, weights, card and tokenizers.

  A README.md that somebody else wrote stays as it is.

  Args:
    params: the stored tree, padded vocabulary rows or not.
    tokens: special ids, written into both configs.
    generation: further fields of generation_config.json.
    source_tokenizer: saved at the root, where AutoTokenizer looks; anything
      with `save_pretrained(folder)` or `save(folder)`.
    target_tokenizer: saved in target_tokenizer/; None where it is the same.
    max_shard_size: see `encdec.hub.files.safetensors_writer.write_weights`.
    unread: see `encdec.hub.weights.conversion.tensors_to_write`.

  Raises:
    ValueError: the tree does not fit the config, or a size is none; the folder
      is as it was.
  """
  share = share_of(params)
  tensors = tensors_to_write(
    encdec_config(hub_config, share=share), params, unread=unread
  )
  limit = parse_size(max_shard_size)
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  # Left by a save that was killed; they may be as large as the weights.
  for left in folder.glob(f"*{PARTIAL}[0-9]*"):
    left.unlink(missing_ok=True)
  config = copy.deepcopy(hub_config)
  config.architectures = ["EncoderDecoderModel"]
  set_tied(config, share)
  config.dtype = tensors[0].dtype.name
  ids = {} if tokens is None else _special_ids(tokens)
  config.update(ids)
  _write_config(folder, config)
  generation_config = GenerationConfig.from_dict({**(generation or {}), **ids})
  write_text(
    folder / "generation_config.json", generation_config.to_json_string()
  )
  write_weights(folder, tensors, limit)
  _save_tokenizers(folder, source_tokenizer, target_tokenizer)
  readme = folder / "README.md"
  if not readme.exists() or MARK in readme.read_text(encoding="utf-8"):
    names = ("tokenizer_config.json", "tokenizer.json")
    decoding = target_tokenizer or source_tokenizer
    text = render(
      card or Card(),
      config,
      tokens,
      tokenizer=any((folder / name).exists() for name in names),
      target_tokenizer=(folder / "target_tokenizer").exists(),
      target_model=hasattr(getattr(decoding, "inner", decoding), "spm_target"),
    )
    write_text(readme, text)


def _special_ids(tokens: SpecialTokens) -> dict[str, Any]:
  """The ids that are set, by their names in both configs."""
  end = tokens.end[0] if len(tokens.end) == 1 else list(tokens.end)
  ids = {
    "decoder_start_token_id": tokens.start,
    # 0 is an id: the end token of a GPT-2 that was trained from nothing.
    "eos_token_id": None if end == [] else end,
    "pad_token_id": tokens.pad,
  }
  return {name: value for name, value in ids.items() if value is not None}


def _save_tokenizers(folder: Path, source: Any, target: Any) -> None:
  for tokenizer, place in (
    (source, folder),
    (target, folder / "target_tokenizer"),
  ):
    if tokenizer is not None:
      save = getattr(tokenizer, "save_pretrained", None) or tokenizer.save
      save(str(place))
  if source is not None and target is None:
    # An earlier save's: readers would take it for this model's.
    shutil.rmtree(folder / "target_tokenizer", ignore_errors=True)


def save_part(
  folder: str | Path,
  params: Params,
  hub_config: EncoderDecoderConfig,
  part: str,
  *,
  max_shard_size: int | str = "10GB",
  unread: Mapping[str, Any] | None = None,
) -> None:
  """Writes one side, "encoder" or "decoder", as a model of its own."""
  if part not in ("encoder", "decoder"):
    raise ValueError(f"part={part!r} must be 'encoder' or 'decoder'")
  share = share_of(params)
  tensors = tensors_to_write(
    encdec_config(hub_config, share=share), params, part, unread
  )
  limit = parse_size(max_shard_size)
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  config = copy.deepcopy(getattr(hub_config, part))
  names = ARCHS[config.model_type].PYTORCH_CLASSES
  config.architectures = [names[part == "decoder"]]
  config.dtype = tensors[0].dtype.name
  _write_config(folder, config)
  write_weights(folder, tensors, limit)


def _write_config(folder: Path, config: PretrainedConfig) -> None:
  values = json.loads(config.to_json_string(use_diff=False))
  text = json.dumps(values, indent=2, sort_keys=True) + "\n"
  write_text(folder / "config.json", text)


def push_folder(
  folder: str | Path,
  repo_id: str,
  *,
  token: str | bool | None = None,
  private: bool | None = None,
  commit_message: str = "Upload model",
) -> str:
  """Uploads a saved folder; returns its address.

  Raises:
    HubError: the Hub cannot be reached or refuses; the message says why.
  """
  try:
    huggingface_hub.create_repo(
      repo_id, token=token, private=private, exist_ok=True
    )
    done = huggingface_hub.upload_folder(
      repo_id=repo_id,
      folder_path=str(folder),
      token=token,
      commit_message=commit_message,
      ignore_patterns=[f"*{PARTIAL}*"],
    )
  except (HTTPError, errors.HFValidationError, OSError) as error:
    raise HubError(
      f"{repo_id!r} cannot be written on the Hub ({first_line(error)}); check "
      "the name, and log in with a token that may write"
    ) from error
  return str(done)
