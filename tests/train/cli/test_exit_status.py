"""Statuses that launchers go by are those of shells and of sysexits.h."""

import os
import signal

from train.cli import exit_status


def test_statuses_are_those_that_others_know():
  assert exit_status.AGAIN == os.EX_TEMPFAIL
  assert exit_status.INTERRUPTED == 128 + signal.SIGINT
  assert exit_status.TERMINATED == 128 + signal.SIGTERM


def test_any_status_has_a_meaning():
  assert exit_status.meaning(143) == "was stopped by SIGTERM"
  assert exit_status.meaning(7) == "ended with status 7"
