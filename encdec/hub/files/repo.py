"""Files of a model, from a local folder or a repository of the Hub."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors

from encdec.hub.error_text import fault
from encdec.hub.files.lazy_tensors import WeightFiles
from encdec.hub.files.mmap import WeightFileError
from encdec.hub.files.weight_files import FORMATS, open_weights, shard_names

# The base error of the Hub's HTTP library: connection errors are not wrapped.
HTTPError: type[Exception] = errors.HfHubHTTPError.__bases__[0]


class HubError(OSError):
  """A model cannot be reached or does not hold the file asked for."""


@dataclasses.dataclass(frozen=True)
class Origin:
  """A model's folder or Hub id, and the options of downloading it.

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
      offline = self.local_files_only or huggingface_hub.is_offline_mode()
      # The Hub has said before that the model has no such file.
      absent = self._cached(filename) is huggingface_hub._CACHED_NO_EXIST
      if absent or (offline and isinstance(self._cached("config.json"), str)):
        return None
      raise self._unreachable(error) from error
    except errors.EntryNotFoundError:
      return None
    except (HTTPError, errors.HFValidationError, OSError) as error:
      raise self._unreachable(error) from error
    return Path(path)

  def json(self, filename: str) -> dict[str, Any] | None:
    """A JSON object, None where the model has no such file."""
    path = self.file(filename)
    if path is None:
      return None
    try:
      value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
      raise HubError(
        f"{path} is no JSON ({fault(error)}); replace it"
      ) from error
    if not isinstance(value, dict):
      raise HubError(f"{path} holds no JSON object; replace it")
    return value

  def weights(self) -> WeightFiles:
    """The tensors of the model; missing files are downloaded.

    Raises:
      WeightFileError: it has none that can be read.
      HubError: it cannot be reached.
    """
    if self.folder is not None:
      return open_weights(self.folder)
    for kind in FORMATS:
      path = self.file(kind.single)
      if path is None:
        path = self.file(kind.index)
        if path is not None:
          self._fetch_shards(path)
      if path is not None:
        return open_weights(path.parent)
    raise WeightFileError(
      f"{self.name} holds no weights, as far as was downloaded: none of "
      f"{', '.join(kind.single for kind in FORMATS)}; correct the name, or "
      "save the model there"
    )

  def _fetch_shards(self, index: Path) -> None:
    for shard in sorted(set(shard_names(index).values())):
      if self.file(shard) is None:
        raise WeightFileError(
          f"{self.name} lacks the shard {shard} that its {index.name} names"
        )

  def _cached(self, filename: str) -> Any:
    return huggingface_hub.try_to_load_from_cache(
      self.name,
      "/".join(filter(None, (self.subfolder, filename))),
      cache_dir=self.cache_dir,
      revision=self.revision,
    )

  def _unreachable(self, error: Exception) -> HubError:
    if isinstance(error, errors.HFValidationError):
      return HubError(
        f"{self.name!r}: there is no such folder, and it is no Hub id, which "
        "is a name or user/name; correct it"
      )
    return HubError(
      f"{self.name!r} is no folder, and as a Hub id it cannot be reached "
      f"({type(error).__name__}: {first_line(error)}); correct the name, log "
      "in, or download it first and pass its folder"
    )


def first_line(error: Exception) -> str:
  """What an error says, in one line."""
  return (str(error).strip() or type(error).__name__).splitlines()[0]
