"""A run's own step is compiled without arrays."""

import pytest


def test_the_step_is_the_runs(data_parallel):
  found, mesh = data_parallel
  assert found.seconds > 0
  assert mesh.size == 8
  assert "num_partitions=8" in found.compiled.as_text().splitlines()[0]


def test_what_a_mesh_cannot_hold_is_refused(compile_smoke):
  with pytest.raises(ValueError, match=r"train.batch_size=12 must be a mult"):
    compile_smoke((1, 8, 1, 1), **{"train.batch_size": 12})
