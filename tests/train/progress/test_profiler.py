"""The steps that are traced are those that were asked for."""

import jax
import jax.numpy as jnp
import pytest

from train.errors import Refusal
from train.progress.profiler import Profiler, Steps, parse_steps


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("10", "write the first and the last step"),
    ("a:b", "write the first and the last step"),
    ("0:3", "steps are from 1 to train.steps=20"),
    ("5:4", "the first is no later than the last"),
    ("5:21", "steps are from 1 to train.steps=20"),
  ],
)
def test_steps_that_there_are_not_are_refused(text, message):
  with pytest.raises(Refusal, match=message):
    parse_steps(text, 20)


def test_steps_are_read():
  assert parse_steps("", 20) is None
  assert parse_steps("3:5", 20) == Steps(3, 5)


def run(steps, folder, monkeypatch, first=1):
  """Which steps were launched while a trace was written."""
  state = {"on": False, "written": 0}

  def start(path):
    assert path == str(folder) and not state["on"]
    state["on"] = True

  def stop():
    assert state["on"]
    state.update(on=False, written=state["written"] + 1)

  monkeypatch.setattr(jax.profiler, "start_trace", start)
  monkeypatch.setattr(jax.profiler, "stop_trace", stop)
  tracer, traced = Profiler(steps, folder), []
  for step in range(first, 8):
    tracer.begin(step)
    if state["on"]:
      traced.append(step)
    tracer.end(step, jnp.ones(()))
  tracer.close()
  tracer.close()
  assert not state["on"]
  return traced, state["written"]


def test_those_steps_are_traced(tmp_path, monkeypatch):
  assert run(Steps(3, 5), tmp_path, monkeypatch) == ([3, 4, 5], 1)
  assert run(None, tmp_path, monkeypatch) == ([], 0)
  # A run that is stopped writes what it has.
  assert run(Steps(6, 9), tmp_path, monkeypatch) == ([6, 7], 1)


def test_a_run_that_goes_on_among_them_traces_the_rest(
  tmp_path, monkeypatch, caplog
):
  assert run(Steps(3, 5), tmp_path, monkeypatch, first=4) == ([4, 5], 1)
  assert not caplog.records
  # Nothing is left of them, and that is said.
  assert run(Steps(3, 5), tmp_path, monkeypatch, first=6) == ([], 0)
  assert "--profile=3:5: none of these steps was taken" in caplog.text
