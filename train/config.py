"""The type of a configuration, as training sees it."""

from typing import TYPE_CHECKING, Any, TypeAlias

from ml_collections import ConfigDict

if TYPE_CHECKING:
  # The values are checked by train.validate; ConfigDict types every one of
  # them as a union of all types.
  Config: TypeAlias = Any
else:
  Config = ConfigDict
