"""Topologies that are not known are refused before a compiler is asked."""

import pytest

from train.costs import topology


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("", "''.* is no topology"),
    ("v5e", "write a kind of chip and the shape of a slice"),
    ("v5e:4by4", "is no topology"),
    ("v9:2x2", r"the chip 'v9' is not known.*v5e:4x4.*tpu7x:2x2x1"),
    ("v5e:32x16", "512 chips, more than a slice of v5e has: at most 256"),
  ],
)
def test_what_is_no_topology_is_refused(name, message):
  with pytest.raises(ValueError, match=message):
    topology.devices(name)
