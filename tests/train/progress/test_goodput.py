"""Goodput: every second of a run is counted once, over all its starts."""

import json

import pytest

from train.progress import goodput
from train.progress.goodput import Goodput

# A record without a step that was saved, which each has.
UNSAVED = json.dumps(
  [
    {
      "began": 0,
      "seen": 0,
      "status": None,
      "saved": [],
      "seconds": dict.fromkeys(("step", *goodput.CAUSES), 0.0),
    }
  ]
)


class Clock:
  """The time of `time` and of `perf_counter`, which passes when told to."""

  def __init__(self):
    self.now = 1000.0

  def time(self):
    return self.now

  perf_counter = time

  def sleep(self, seconds):
    self.now += seconds


@pytest.fixture
def clock(monkeypatch):
  found = Clock()
  monkeypatch.setattr(goodput, "time", found)
  return found


def start(folder, clock, step, seconds, status=None, save=None):
  """A start from `step`, with as many seconds of steps of a second each.

  Args:
    save: seconds of steps after which a state is saved; None: none is.
  """
  with Goodput(folder, clock.now) as times:
    clock.sleep(3)
    with times.spent("compile"):
      clock.sleep(5)
    times.begin(step)
    with times.spent("step"):
      for second in range(seconds):
        clock.sleep(1)
        if second + 1 == save:
          with times.spent("save"):
            clock.sleep(2)
            times.saved(step + save)
      times.move("data", 0.5)
    if status is not None:
      times.end(status)
    row = times.row()
  return row


def totals(folder):
  return goodput.sum_up(goodput.read(folder / goodput.FILE))


def test_seconds_are_counted_for_what_they_were_spent_on(tmp_path, clock):
  row = start(tmp_path, clock, 0, seconds=10, status=0, save=10)
  assert totals(tmp_path) == {
    "step": 9.5,
    "start": 3,
    "compile": 5,
    "data": 0.5,
    "save": 2,
    "evaluation": 0,
    "restart": 0,
    "lost": 0,
  }
  assert row["time/goodput"] == pytest.approx(9.5 / 20)
  assert row["time/compile_seconds"] == 5


def test_what_is_done_again_was_lost_and_so_is_the_pause(tmp_path, clock):
  began = clock.now
  # Killed after 10 steps, of which 6 were saved.
  start(tmp_path, clock, 0, seconds=10, save=6)
  clock.sleep(60)
  start(tmp_path, clock, 6, seconds=4, status=0)
  found = totals(tmp_path)
  assert found["lost"] == pytest.approx(3.5)
  assert found["restart"] == pytest.approx(60)
  assert found["step"] == pytest.approx(6 + 3.5)
  assert sum(found.values()) == pytest.approx(clock.now - began)


def test_a_start_that_saved_nothing_was_lost_as_a_whole(tmp_path, clock):
  start(tmp_path, clock, 0, seconds=10, save=6)
  start(tmp_path, clock, 6, seconds=7)
  start(tmp_path, clock, 3, seconds=5)
  # Of the first start half of its saved steps are done again as well.
  assert totals(tmp_path)["lost"] == pytest.approx(3.5 + 6.5 + 3, abs=0.3)


@pytest.mark.parametrize("status", [0, 130])
def test_a_pause_that_was_wanted_is_no_loss(tmp_path, clock, status):
  start(tmp_path, clock, 0, seconds=10, status=status, save=10)
  clock.sleep(10_000)
  start(tmp_path, clock, 10, seconds=1)
  assert totals(tmp_path)["restart"] == 0


def test_a_kill_loses_little_of_what_is_known(tmp_path, monkeypatch):
  monkeypatch.setattr(goodput, "RECORD_SECONDS", 0.05)
  with Goodput(tmp_path, goodput.time.time()) as times:
    times.begin(0)
    with times.spent("evaluation"):
      goodput.time.sleep(0.5)
      seconds = totals(tmp_path)["evaluation"]
  assert seconds > 0.3


def test_a_full_disk_stops_no_run(tmp_path, clock, monkeypatch):
  def fails(path, value):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(goodput.json_files, "write_json", fails)
  assert start(tmp_path, clock, 0, seconds=3, status=143)["time/goodput"] > 0


def test_a_command_that_finds_nothing_to_do_is_no_start(tmp_path, clock):
  with Goodput(tmp_path, clock.now):
    clock.sleep(3)
  assert not (tmp_path / goodput.FILE).exists()


@pytest.mark.parametrize(
  "text", ["{", "[1]", UNSAVED, '[{"seconds": {}}]', "{}x"]
)
def test_a_damaged_record_is_said_and_begun_anew(tmp_path, clock, caplog, text):
  (tmp_path / goodput.FILE).write_text(text)
  start(tmp_path, clock, 0, seconds=1)
  assert "cannot be read" in caplog.text
  assert totals(tmp_path)["compile"] == 5


def test_the_report_names_what_cost_most_first(tmp_path, clock, capsys):
  goodput.report(tmp_path)
  assert not capsys.readouterr().out
  start(tmp_path, clock, 0, seconds=100, status=143, save=90)
  clock.sleep(7200)
  start(tmp_path, clock, 90, seconds=10, status=0)
  goodput.report(tmp_path)
  assert capsys.readouterr().out == (
    "goodput 1.4% of 2.0 h in 2 starts: steps 100 s, restart 2.0 h, "
    "compile 10 s, lost 10 s, start 6 s, save 2 s, data 1 s\n"
  )
  assert (
    json.loads((tmp_path / goodput.FILE).read_text())[1]["first_step"] == 90
  )
