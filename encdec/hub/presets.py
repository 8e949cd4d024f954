"""Presets: named model sizes of each architecture, without weights."""

import difflib
import re
from typing import Any

from encdec.archs import ARCHS

TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")


def near_preset(name: str) -> str:
  """The preset whose name is most like this one, or ""."""
  known = {
    _letters(f"{arch}{size}"): f"{arch}:{size}"
    for arch, module in ARCHS.items()
    for size in module.PRESETS
  }
  close = difflib.get_close_matches(_letters(name), known, n=1, cutoff=0.8)
  return known[close[0]] if close else ""


def _letters(name: str) -> str:
  return re.sub(r"[^a-z0-9]", "", name.lower())


def preset(arch: str, size: str) -> dict[str, Any]:
  """The values of a config.json; raises ValueError for an unknown size."""
  presets = ARCHS[arch].PRESETS
  if size not in presets:
    raise ValueError(
      f"{arch}:{size} is no preset; {arch} has {', '.join(presets)}"
    )
  # The defaults of the special ids belong to vocabularies that a preset does
  # not have.
  return dict.fromkeys(TOKEN_IDS) | presets[size] | {"model_type": arch}
