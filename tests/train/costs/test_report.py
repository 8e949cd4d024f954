"""What a program costs, in words."""

from train.costs import report


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
