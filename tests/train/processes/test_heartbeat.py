"""Heartbeats: who is lost, who has left, and what the others do about it."""

import queue
import threading
import time

import pytest

from train.processes import heartbeat, links
from train.processes.heartbeat import Heartbeats
from train.processes.laggards import Laggards

TOKEN = bytes(range(links.TOKEN))
HOSTS = ["host-a", "host-b", "host-c"]


class Process:
  """A stand-in for a process of a run: its heartbeats, and how it ended."""

  def __init__(self, number, **options):
    self.ended = queue.Queue()
    self.beats = Heartbeats(
      number, HOSTS, lambda *how: self.ended.put(how), token=TOKEN, **options
    )

  def die(self):
    """As a killed process: its connections close without a word."""
    self.beats._stopped.set()
    time.sleep(0.6)  # Its own thread is between two looks.
    for link in self.beats._links:
      link.connection.close()

  def how(self):
    return self.ended.get(timeout=10)


@pytest.fixture
def processes(monkeypatch):
  """Three processes, of which the first one listens."""
  monkeypatch.setattr(heartbeat, "GRACE_SECONDS", 0.1)
  monkeypatch.setattr(heartbeat, "LEAVING_SECONDS", 0.1)
  monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.1)
  silences = {"silence": 3.0}
  with links.listen("127.0.0.1") as listener:
    first = Process(0, listener=listener, **silences)
    port = listener.getsockname()[1]
    others = [
      Process(
        number,
        connected=[links.connect(["127.0.0.1"], port, TOKEN, number)],
        **silences,
      )
      for number in (1, 2)
    ]
    deadline = time.monotonic() + 10
    while len(first.beats._links) < 2:
      assert time.monotonic() < deadline
      time.sleep(0.01)
    every = [first, *others]
    yield every
    for process in every:
      process.beats.done()
    time.sleep(0.6)
    for process in every:
      for link in process.beats._links:
        link.connection.close()


@pytest.mark.parametrize("victim", [0, 2])
def test_a_dead_process_is_named_and_the_others_end(processes, victim):
  processes[victim].die()
  for process in (processes[1], processes[2 - victim]):
    status, sentence = process.how()
    assert status == 75
    assert sentence.startswith(f"process {victim} on {HOSTS[victim]} was lost")
    assert "the same command goes on" in sentence


def test_a_process_that_hangs_is_lost_too(processes):
  # It neither sends nor closes.
  processes[2].beats._stopped.set()
  _, sentence = processes[0].how()
  assert sentence.startswith("process 2 on host-c was lost (nothing was heard")
  _, sentence = processes[1].how()
  assert sentence.startswith("process 2 on host-c was lost (process 0 says so")


def test_a_process_that_stays_at_a_step_is_told_of(processes, caplog):
  """In the first process, which hears of all, and in the one that stays."""
  for process in processes:
    process.beats.laggards = Laggards(process.beats._name, patience=0.5)
    process.beats.step = 7
  time.sleep(2)
  assert "step" not in caplog.text
  processes[0].beats.step = processes[1].beats.step = 8
  time.sleep(2)
  told = [text for text in caplog.messages if "step" in text]
  assert len(told) == 2
  for text in told:
    assert text.startswith("process 2 on host-c has begun no step after 7, ")
  assert all(process.ended.empty() for process in processes)


def test_who_is_heard_of_is_not_lost(processes):
  # Longer than the silence of one that hangs.
  time.sleep(4)
  assert all(process.ended.empty() for process in processes)


@pytest.mark.parametrize("first", [0, 1])
def test_nobody_misses_a_process_that_is_done(processes, first):
  processes[first].beats.done()
  processes[first].die()
  time.sleep(1)
  assert all(process.ended.empty() for process in processes)


@pytest.mark.parametrize("leaving", [0, 1])
def test_the_others_end_with_a_process_that_fails(processes, leaving):
  processes[leaving].beats.leave(1)
  for process in (processes[1 - leaving], processes[2]):
    status, sentence = process.how()
    assert status == 1
    assert f"process {leaving} on {HOSTS[leaving]} failed" in sentence


@pytest.mark.parametrize("asked", [0, 1])
def test_all_hear_that_one_is_asked_to_stop(processes, asked):
  assert not any(process.beats.stop_told.is_set() for process in processes)
  processes[asked].beats.tell_of_stop()
  assert all(process.beats.stop_told.wait(5) for process in processes)
  assert all(process.ended.empty() for process in processes)


def test_settling_waits_for_a_loss_alone(processes, monkeypatch):
  began = time.monotonic()
  processes[0].beats.settle(0.2)
  assert time.monotonic() - began < 1
  processes[1].die()
  processes[0].beats.settle(10.0)
  assert processes[0].how()[0] == 75


@pytest.mark.parametrize(
  ("text", "status"),
  [
    ("UNAVAILABLE: Socket closed", 75),
    ("UNKNOWN: Gloo AllGather failed: Connection reset by peer", 75),
    ("INVALID_ARGUMENT: shapes differ", 1),
  ],
)
def test_an_error_of_a_computation_may_be_a_lost_hosts(
  processes, monkeypatch, text, status
):
  waited = []
  monkeypatch.setattr(heartbeat, "_own", processes[0].beats)
  monkeypatch.setattr(Heartbeats, "settle", lambda _, s: waited.append(s))
  assert heartbeat.settle(RuntimeError(text)) == status
  # A host may be gone whose connection stays open.
  assert (waited[0] > heartbeat.SILENCE_SECONDS) == (status == 75)


def test_a_process_that_leaves_first_waits_for_the_others(
  processes, monkeypatch
):
  monkeypatch.setattr(heartbeat, "LEAVING_SECONDS", 5.0)
  began = time.monotonic()
  leaving = threading.Thread(target=lambda: processes[0].beats.done(wait=True))
  leaving.start()
  time.sleep(0.5)
  assert leaving.is_alive()
  for process in processes[1:]:
    process.beats.done()
    process.die()
  leaving.join()
  assert time.monotonic() - began < 4.5
