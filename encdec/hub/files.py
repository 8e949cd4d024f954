"""Files of a model by name: a local folder, or a repository of the Hub."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors

from encdec.hub.formats import (
  INDEX,
  OTHERS,
  SINGLE,
  WeightFileError,
  WeightFiles,
  open_weights,
  shard_names,
)


class HubError(OSError):
  """A model cannot be reached or does not hold the file asked for."""


@dataclasses.dataclass(frozen=True)
class Origin:
  """Where a model's files are, and how to get at them.

  Attributes:
    name: a folder, or a Hub id such as "bert-base-uncased".
  """

  name: str
  revision: str | None = None
  subfolder: str = ""
  token: str | bool | None = None
  cache_dir: str | None = None
  local_files_only: bool = False

  @property
  def folder(self) -> Path | None:
    """The local folder, or None where the name is the Hub's."""
    path = Path(self.name)
    return path / self.subfolder if path.is_dir() else None

  def file(self, filename: str) -> Path | None:
    """A local copy of one file, None where the model has no such file.

    Raises:
      HubError: the model cannot be reached; the message names it and a fix.
    """
    if self.folder is not None:
      path = self.folder / filename
      return path if path.is_file() else None
    try:
      path = huggingface_hub.hf_hub_download(
        self.name,
        filename,
        revision=self.revision,
        subfolder=self.subfolder or None,
        token=self.token,
        cache_dir=self.cache_dir,
        local_files_only=self.local_files_only,
      )
    except errors.LocalEntryNotFoundError as error:
      # Also what is raised when the network is down or switched off.
      if self.local_files_only and self._is_cached():
        return None
      raise self._unreachable(error) from error
    except errors.EntryNotFoundError:
      return None
    except (
      errors.HfHubHTTPError,
      errors.HFValidationError,
      OSError,
    ) as error:
      raise self._unreachable(error) from error
    return Path(path)

  def json(self, filename: str) -> dict[str, Any] | None:
    """A JSON object, None where the model has no such file."""
    path = self.file(filename)
    if path is None:
      return None
    try:
      value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
      raise HubError(f"{path} is no JSON ({error}); replace it") from error
    if not isinstance(value, dict):
      raise HubError(f"{path} holds no JSON object; replace it")
    return value

  def weights(self) -> WeightFiles:
    """The tensors of the model, every shard at hand.

    Raises:
      WeightFileError: it has none that can be read.
      HubError: it cannot be reached.
    """
    if self.folder is not None:
      return open_weights(self.folder)
    path = self.file(SINGLE)
    if path is None:
      path = self.file(INDEX)
      if path is None:
        raise self._without_weights()
      for shard in sorted(set(shard_names(path).values())):
        if self.file(shard) is None:
          raise WeightFileError(
            f"{self.name} lacks the shard {shard} that its {INDEX} names"
          )
    return open_weights(path.parent)

  def _without_weights(self) -> WeightFileError:
    held = "other files"
    if not self.local_files_only:
      files = huggingface_hub.list_repo_files(
        self.name, revision=self.revision, token=self.token
      )
      held = ", ".join(sorted(set(files) & set(OTHERS))) or "no weights"
    return WeightFileError(
      f"{self.name} holds {held}; only safetensors are read: save it as "
      f"{SINGLE} with PyTorch transformers and load that folder"
    )

  def _is_cached(self) -> bool:
    cached = huggingface_hub.try_to_load_from_cache(
      self.name,
      "/".join(filter(None, (self.subfolder, "config.json"))),
      cache_dir=self.cache_dir,
      revision=self.revision,
    )
    return isinstance(cached, str)

  def _unreachable(self, error: Exception) -> HubError:
    line = str(error).strip().splitlines()[0]
    return HubError(
      f"{self.name!r} is no folder, and as a Hub id it cannot be reached "
      f"({type(error).__name__}: {line}); correct the name, log in, or "
      "download it first and pass its folder"
    )
