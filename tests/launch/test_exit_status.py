"""Which ends of main.py ask for another start."""

import signal

import pytest

from launch import exit_status
from train.cli import exit_status as of_main


@pytest.mark.parametrize("status", [0, 1, 2, 74, 126, 127, 128, 130, 160, 253])
def test_an_end_that_would_come_again_is_the_last(status):
  assert not exit_status.runs_again(status)


@pytest.mark.parametrize(
  "status", [75, 143, *(128 + s for s in (signal.SIGKILL, signal.SIGSEGV))]
)
def test_what_another_start_can_mend_is_started_again(status):
  assert exit_status.runs_again(status)


@pytest.mark.parametrize(
  ("statuses", "status"),
  [
    ([0, 0], 0),
    ([0, 75], 75),
    ([75, 134, 137], 137),
    ([134, 1, 75], 1),
    ([143, 130], 130),
    ([0, 1, 2], 2),
  ],
)
def test_a_status_that_is_final_counts_first(statuses, status):
  assert exit_status.of_all(statuses) == status
  assert exit_status.of_all(statuses[::-1]) == status


def test_the_statuses_are_those_that_main_has():
  assert exit_status.LOST == of_main.AGAIN
  assert exit_status.TERMINATED == of_main.TERMINATED
  assert not exit_status.runs_again(of_main.FAILED)
  assert not exit_status.runs_again(of_main.INTERRUPTED)
