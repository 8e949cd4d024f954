"""Goodput of a run that is interrupted, beside a stopwatch."""

import re
import signal
import time

import pytest

from tests.train.processes import runs
from train.progress import goodput

PAUSE = 3.0
SAVE_EVERY = 20
pytestmark = pytest.mark.timeout(900)


class Stopwatch:
  """Looks at a run's rows from outside.

  Attributes:
    seen: when each step's row came, for the start that is running.
  """

  def __init__(self, workdir):
    self.workdir = workdir
    self.seen = {}

  def look(self):
    path = self.workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    for step in re.findall(r'^\{"step": (\d+).*\}$', text, re.MULTILINE):
      self.seen.setdefault(int(step), time.monotonic())


@pytest.mark.sample(1, group="whole runs")
def test_it_is_what_a_stopwatch_says(tmp_path, one_device_env):
  workdir, steps = tmp_path / "run", 90
  flags = [
    "--config=configs/dates.py:smoke",
    f"--workdir={workdir}",
    f"--config.train.steps={steps}",
    "--config.train.log_every_steps=1",
    "--config.train.eval_every_steps=0",
    f"--config.train.checkpoint_every_steps={SAVE_EVERY}",
    "--config.train.batch_size=64",
    "--config.eval.text_examples=-1",
  ]
  began = time.monotonic()
  lost = paused = 0.0
  first = 0
  for number, step in ((signal.SIGKILL, 34), (signal.SIGTERM, 50), (9, 75)):
    watch = Stopwatch(workdir)
    started = runs.start(1, tmp_path, flags, one_device_env)
    # Later than any row that an earlier start has left.
    while step not in watch.seen:
      assert started.running(), started.tail()
      watch.look()
      time.sleep(0.005)
    started.send(signal.Signals(number), [0])
    [status] = started.wait(runs.MINUTE)
    assert status == (143 if number == signal.SIGTERM else -9)
    watch.look()
    last = max(watch.seen)
    if number != signal.SIGTERM:
      first = last // SAVE_EVERY * SAVE_EVERY
      lost += watch.seen[last] - watch.seen[first]
    time.sleep(PAUSE)
    paused += PAUSE
  runs.finish(1, tmp_path, flags, one_device_env)
  wall = time.monotonic() - began
  totals = goodput.sum_up(goodput.read(workdir / goodput.FILE))
  near = 0.05 * wall
  # All of the time, but for what a kill leaves unsaid and the end of Python.
  assert sum(totals.values()) == pytest.approx(wall, abs=near)
  assert totals["lost"] == pytest.approx(lost, abs=min(near, 0.3 * lost))
  assert totals["restart"] == pytest.approx(paused, abs=near)
  rows = runs.read_rows(workdir / "metrics.jsonl")
  pace = sum(row["time/step_seconds"] for row in rows[1:])
  assert totals["step"] == pytest.approx(pace, abs=near)
  assert rows[-1]["time/goodput"] == pytest.approx(
    totals["step"] / sum(totals.values()), abs=0.05
  )
