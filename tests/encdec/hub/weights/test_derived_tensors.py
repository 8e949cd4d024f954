"""Tables that follow from the config are written, and checked when read."""

import numpy as np
import pytest

from encdec.hub import (
  LoadingError,
  compose_config,
  encdec_config,
  load_side_config,
)
from encdec.hub.weights import derived_tensors

NAME = "decoder.model.decoder.embed_positions.weight"


def _config(decoder):
  sides = (load_side_config(f"{arch}:tiny") for arch in ("bert", decoder))
  return encdec_config(compose_config(*sides))


def test_only_computed_positions_are_written():
  leaves = {"any": np.zeros(1, np.float16)}
  (tensor,) = derived_tensors.tensors_to_write(_config("marian"), leaves, None)
  assert tensor.name == NAME and tensor.make().dtype == np.float16
  assert not derived_tensors.tensors_to_write(_config("bart"), leaves, None)
  assert not derived_tensors.tensors_to_write(
    _config("marian"), leaves, "encoder"
  )


def test_a_table_of_other_values_is_refused():
  config = _config("pegasus")
  table = derived_tensors.computed(config)[NAME]
  own = {NAME: "positions"}
  tensors = {"positions": table.astype(np.float16)}
  assert derived_tensors.stored_names(tensors, own, config, "f") == {NAME}
  tensors["positions"] = table + np.float32(0.1)
  with pytest.raises(LoadingError, match="f holds positions, which differs by"):
    derived_tensors.stored_names(tensors, own, config, "f")
