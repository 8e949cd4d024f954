"""Public names: what a model card says of models and data sets.

A folder of this machine tells its readers nothing, and its owner's name.
"""

import re
from pathlib import Path

from data import sources

# Keys that may name a folder.
MODELS = ("model.encoder", "model.decoder", "model.pair")
_PRESET_OR_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*|:[\w-]+)?")
# A config may stand behind the id of a data set.
_SET = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*){0,2}")


def is_local(name: str, kind: re.Pattern[str] = _PRESET_OR_ID) -> bool:
  """Whether a name is that of a folder here, and no preset or Hub id."""
  return Path(name).exists() or not kind.fullmatch(name)


def model(name: str) -> str:
  """A preset or a Hub id as it is, of a folder the last name."""
  return _last(name) if is_local(name) else name


def datasets(mixture: str) -> tuple[str, ...]:
  """What `data.train` names, with shares where it names several.

  Raises:
    ValueError: it is no URI and no mixture of them.
  """
  weights = sources.parse_mixture(mixture)
  return tuple(
    _dataset(uri) if len(weights) == 1 else f"{share:.3g}*{_dataset(uri)}"
    for uri, share in weights.items()
  )


def _dataset(uri: str) -> str:
  scheme, location, split = sources.parse_uri(uri)
  # Behind the name of tfds stand a config and a version.
  if scheme != "tfds" and (scheme != "hf" or is_local(location, _SET)):
    location = "::".join(map(_last, location.split("::")))
  name = f"{scheme}:{location}" if location else scheme
  return f"{name}@{split}" if uri.endswith(f"@{split}") else name


def _last(path: str) -> str:
  """The last name of a path, be it of Windows."""
  return re.split(r"[\\/]", path.rstrip("\\/"))[-1]
