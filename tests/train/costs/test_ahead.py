"""A run's own step is compiled without arrays."""

import dataclasses

import pytest

from train.costs import ahead
from train.costs.chips import CHIPS
from train.errors import Refusal


def test_the_step_is_the_runs(data_parallel):
  found, mesh = data_parallel
  assert found.seconds > 0
  assert mesh.size == 8
  assert "num_partitions=8" in found.compiled.as_text().splitlines()[0]


def test_what_a_mesh_cannot_hold_is_refused(compile_smoke):
  with pytest.raises(ValueError, match=r"train.batch_size=12 must be a mult"):
    compile_smoke((1, 8, 1, 1), **{"train.batch_size": 12})


def test_what_a_chip_cannot_hold_is_refused(compile_smoke, monkeypatch):
  """A GPU's compiler takes what needs more memory than there is."""
  program_costs = ahead.program_costs

  def of_small_chip(*arguments):
    chip = dataclasses.replace(CHIPS["h200"], memory=1e6)
    return dataclasses.replace(program_costs(*arguments), chip=chip)

  monkeypatch.setattr(ahead, "program_costs", of_small_chip)
  with pytest.raises(Refusal, match=r"of a device's memory, which has 0.00"):
    compile_smoke((1, 8, 1, 1))
