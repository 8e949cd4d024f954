"""What a report says, and which checkpoints are refused."""

import pytest

from encdec.hub.weights.loading_report import (
  OF_PYTHON,
  LoadingError,
  LoadingReport,
  check,
)


def _check(report, ignore=False):
  check(report, "folder", ignore_mismatched=ignore, remedies=OF_PYTHON)


@pytest.mark.parametrize(
  ("report", "message"),
  [
    (LoadingReport(missing=("a",)), "folder lacks a; pass initialise_missing"),
    (LoadingReport(unexpected=("b",)), "holds b, unknown to this"),
    (
      LoadingReport(mismatched=(("c", (2,), (3,)),)),
      r"c \[2\] \(the config implies \[3\]\)",
    ),
  ],
)
def test_each_fault_is_told(report, message):
  with pytest.raises(LoadingError, match=message):
    _check(report)


def test_what_is_expected_or_unused_is_no_fault():
  _check(LoadingReport(initialised=("a",), expected=("a",), unused=("b",)))
  _check(LoadingReport(mismatched=(("c", (2,), (3,)),)), ignore=True)


def test_the_summary_tells_expected_from_unexpected_draws():
  report = LoadingReport(initialised=("a", "b"), expected=("b",))
  assert report.summary().splitlines() == [
    "initialised as expected: b",
    "initialised: a",
  ]
  assert LoadingReport().summary() == "every tensor was read"


def test_only_a_drawn_head_or_projection_is_warned_of():
  assert LoadingReport(initialised=("a",), expected=("a",)).warning() is None
  head = LoadingReport(heads=("lm_head.weight",)).warning()
  assert head and "lm_head.weight were drawn" in head
