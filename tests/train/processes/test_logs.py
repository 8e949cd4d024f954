"""The log of each process of several, and of none that is alone."""

import logging

import pytest

from train.cli import signals
from train.processes import logs


@pytest.fixture
def second_of_two(monkeypatch):
  monkeypatch.setattr(logs.jax, "process_count", lambda: 2)
  monkeypatch.setattr(logs.jax, "process_index", lambda: 1)
  root = logging.getLogger()
  before = list(root.handlers)
  yield
  signals._process.log = None
  for handler in set(root.handlers) - set(before):
    root.removeHandler(handler)


def test_what_was_logged_before_the_folder_was_there_is_not_lost(
  second_of_two, tmp_path, monkeypatch
):
  run = tmp_path / "run"
  logs.begin(str(run))
  logging.getLogger("encdec").warning("before")
  assert not run.exists()
  run.mkdir()
  logging.getLogger("encdec").warning("after")
  monkeypatch.setattr(signals.os, "isatty", lambda descriptor: False)
  signals._say("process 0 on host-a was lost")
  text = (run / "logs/process-00001.log").read_text()
  assert [line.split("] ")[-1] for line in text.splitlines()] == [
    "before",
    "after",
    "process 0 on host-a was lost",
  ]


def test_a_folder_that_cannot_be_written_stops_nothing(second_of_two, tmp_path):
  (tmp_path / "logs").write_text("a file")
  logs.begin(str(tmp_path))
  logging.getLogger("encdec").warning("said on stderr alone")


def test_a_process_that_is_alone_has_no_file(tmp_path):
  before = list(logging.getLogger().handlers)
  logs.begin(str(tmp_path))
  assert logging.getLogger().handlers == before
