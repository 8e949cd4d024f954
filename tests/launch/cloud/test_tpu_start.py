"""A start on several hosts: how it has ended, by what they print."""

import dataclasses
import time

import pytest

from launch import exit_status
from launch.cloud.tpu_commands import ENDED
from launch.cloud.tpu_start import Start
from launch.program import Program


@dataclasses.dataclass
class Machines:
  """Slices by name, each with what its hosts print."""

  prints: dict[str, str]

  @property
  def nodes(self) -> list[str]:
    return [*self.prints]

  def run(self, command: Program) -> str:
    return ""

  def ssh(self, node: str, script: str) -> list[str]:
    return ["bash", "-c", f"printf '{self.prints[node]}'"]


def ended(**prints: str) -> Start:
  start = Start(Machines(prints), Program(("--x",)))
  end = time.monotonic() + 60
  while start.running:
    assert time.monotonic() < end
    time.sleep(0.01)
  start.end()
  return start


@pytest.mark.parametrize(
  ("a", "b", "status"),
  [
    (f"{ENDED} h1 0\\n{ENDED} h2 0\\r\\n", f"{ENDED} h3 0\\n", 0),
    (f"{ENDED} h1 0\\n{ENDED} h2 1\\n", f"{ENDED} h3 0\\n", 1),
    (f"{ENDED} h1 75\\n", f"{ENDED} h3 137\\n", 137),
    # The others have noticed it.
    (f"{ENDED} h1 134\\n{ENDED} h2 1\\n", f"{ENDED} h3 75\\n", 1),
  ],
)
def test_the_status_that_is_the_cause_counts(a, b, status):
  start = ended(a=a, b=f"{b}\\n")
  assert start.status == status and not start.silent


@pytest.mark.parametrize(
  "b", ["", f"{ENDED} h3\\n", f"{ENDED} h3 x\\n", "0\\n"]
)
def test_a_slice_that_says_nothing_of_its_end_is_lost(b):
  start = ended(a=f"{ENDED} h1 0\\n", b=f"{b}\\n")
  assert start.silent == {"b"} and start.status == exit_status.LOST


def test_what_hosts_print_is_passed_on(capfd):
  ended(a="step 1\\n")
  assert capfd.readouterr().out == "step 1\n"
  ended(a="step 1\\n", b="step 2\\n")
  assert sorted(capfd.readouterr().out.splitlines()) == [
    "[a] step 1",
    "[b] step 2",
  ]


def test_an_error_counts_where_a_slice_says_nothing():
  start = ended(a=f"{ENDED} h1 1\\n", b="\\n")
  assert start.silent == {"b"} and start.status == 1
