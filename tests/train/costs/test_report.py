"""What a program costs, in words."""

import dataclasses

from train.costs import report
from train.costs.hlo import Loop


def test_the_report_has_every_part(data_parallel):
  found, mesh = data_parallel
  text = report.table(found, mesh, pairs=8)
  for word in ("parameters", "optimizer state", "temporary", "donated"):
    assert word in text
  assert "8 x cpu (data=8)" in text
  assert "all-reduce over data, 8 devices" in text
  # A CPU has no figures, and there is no time without them.
  assert "pairs/s" not in text
  assert len(report.summary(found.costs, mesh, 8)) == 5


def test_what_is_not_counted_is_said(data_parallel):
  found, mesh = data_parallel
  costs = dataclasses.replace(
    found.costs,
    work=dataclasses.replace(found.costs.work, kernels=("fancy",)),
    loops=(Loop("a", "", None), Loop("b", "", 0)),
  )
  assert "without the FLOPs of fancy" in report.summary(costs, mesh, 8)[2]
  assert "without" not in report.summary(found.costs, mesh, 8)[2]
  text = report.table(dataclasses.replace(found, costs=costs), mesh)
  assert "loops: unknown, counted once, x a, 0 x b" in text
