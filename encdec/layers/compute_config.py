"""How the layers of a model are computed: dtypes, platform, mesh, kernels."""

import dataclasses
from typing import Any

from encdec import sharding


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
  """What all layers are built with; see `encdec.model` for the fields."""

  dtype: Any
  param_dtype: Any
  platform: str
  rules: sharding.Rules | None = None
  remat: str = "none"
  scan_unroll: int = 1
  attention_dropout: str = "values"
  attention: str = "auto"
