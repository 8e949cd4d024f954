"""A sweep's jobs: each submitted once, whatever moment it was killed in."""

import dataclasses
import json

import pytest

from launch import cluster_command, submissions, sweep
from launch.exit_status import Ended
from launch.members import Member
from launch.program import Refusal

A, B = (Member(name, (f"--x={name}",), "f") for name in "ab")


class Killed(Exception):
  pass


@dataclasses.dataclass
class Cluster:
  """Jobs by name; `dies` is where a submission is cut.

  Attributes:
    refuses: errors of the next submissions; one of "taken" is taken all the
      same.
  """

  jobs: dict = dataclasses.field(default_factory=dict)
  over: dict = dataclasses.field(default_factory=dict)
  dies: str = ""
  silent: int = 0
  refuses: list = dataclasses.field(default_factory=list)

  def name(self, command):
    return "name"

  def render(self, command, name):
    return f"#!/bin/bash\n{name} {command.flags}\nEND\n"

  def submit(self, command, name):
    if self.dies == "before":
      raise Killed
    assert name not in self.jobs
    error = self.refuses.pop(0) if self.refuses else ""
    if error and "taken" not in error:
      raise Refusal(error)
    self.jobs[name] = str(len(self.jobs) + 1)
    if error:
      raise Refusal(error)
    if self.dies == "after":
      raise Killed
    return self.jobs[name]

  def find(self, name, command):
    return self.jobs.get(name)

  def ended(self, jobs):
    if self.silent:
      self.silent -= 1
      raise Refusal("squeue failed: timed out")
    return {job: self.over[job] for job in jobs if job in self.over}

  def cancel_command(self, jobs):
    return f"cancel {' '.join(jobs)}"


def resumed(cluster, folder, *members):
  jobs = submissions.Jobs(cluster, folder, poll_seconds=0.0)
  jobs.resume(members)
  return jobs


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_kill_in_the_middle_of_a_submission_doubles_no_job(tmp_path, dies):
  cluster = Cluster(dies=dies)
  with pytest.raises(Killed):
    resumed(cluster, tmp_path, A).start(A)
  cluster.dies = ""
  jobs = resumed(cluster, tmp_path, A)
  if dies == "after":
    assert jobs.running == {"a": A}
  else:
    assert jobs.running == {} and jobs.start(A)
  assert len(cluster.jobs) == 1


def test_a_kill_after_a_submission_finds_the_job(tmp_path):
  cluster = Cluster()
  resumed(cluster, tmp_path, A, B).start(A)
  jobs = resumed(cluster, tmp_path, A, B)
  assert jobs.running == {"a": A} and jobs.ended() == {}
  cluster.over["1"] = Ended(1, "error: no")
  assert jobs.ended() == {"a": Ended(1, "error: no")} and not jobs.running
  jobs.close(A)
  # Another attempt is another job.
  jobs = resumed(cluster, tmp_path, A, B)
  assert not jobs.running and jobs.start(A)
  assert list(cluster.jobs.values()) == ["1", "2"]


def test_a_line_that_a_kill_has_cut_was_not_acted_on(tmp_path):
  cluster = Cluster()
  resumed(cluster, tmp_path, A).start(A)
  path = tmp_path / "jobs.jsonl"
  whole = path.read_text()
  path.write_text(whole[:-5])
  jobs = resumed(cluster, tmp_path, A)
  assert jobs.running == {"a": A} and path.read_text() == whole
  path.write_text("{\n")
  with pytest.raises(Refusal, match=r"jobs\.jsonl is damaged: see which jobs"):
    resumed(cluster, tmp_path, A)


def test_a_job_of_other_flags_must_have_ended(tmp_path):
  cluster = Cluster()
  resumed(cluster, tmp_path, A).start(A)
  changed = dataclasses.replace(A, fingerprint="g")
  said = r"a: job 1 still runs with other flags; .* cancel it: cancel 1"
  with pytest.raises(Refusal, match=said):
    resumed(cluster, tmp_path, changed)
  cluster.over["1"] = Ended(0)
  jobs = resumed(cluster, tmp_path, changed)
  assert not jobs.running and jobs.start(changed)
  assert len(cluster.jobs) == 2


def test_a_cluster_that_does_not_answer_is_asked_again(tmp_path, capsys):
  cluster = Cluster()
  jobs = resumed(cluster, tmp_path, A)
  jobs.start(A)
  cluster.over["1"] = Ended(0)
  cluster.silent = 9
  for _ in range(9):
    assert jobs.ended() == {}
  assert "squeue failed: timed out; asking again" in capsys.readouterr().out
  assert jobs.ended() == {"a": Ended(0)}
  jobs.running["a"], cluster.silent = A, 10
  for _ in range(9):
    jobs.ended()
  with pytest.raises(Refusal, match="timed out"):
    jobs.ended()


def test_how_a_job_ended_may_be_seen_late(tmp_path, monkeypatch):
  """A network's file system shows a node's last words after it has gone."""
  cluster = Cluster()
  jobs = resumed(cluster, tmp_path, A)
  jobs.start(A)
  cluster.over["1"] = Ended(None)
  assert jobs.ended() == {} and jobs.running
  cluster.over["1"] = Ended(0)
  assert jobs.ended() == {"a": Ended(0)}
  monkeypatch.setattr(submissions, "PATIENCE_SECONDS", 0.0)
  jobs.running["a"], cluster.over["1"] = A, Ended(None)
  assert jobs.ended() == {"a": Ended(None)}


def test_an_interruption_says_what_goes_on(tmp_path):
  jobs = resumed(Cluster(), tmp_path, A, B)
  assert jobs.interrupted(None) == "interrupted; the same command goes on"
  assert jobs.start(A) and jobs.start(B)
  assert jobs.interrupted(None).endswith("to cancel them: cancel 1 2")
  jobs.received.append(15)
  assert not jobs.start(A)


def test_what_would_be_submitted_is_a_script(tmp_path):
  script = submissions.render(Cluster(), [A, B], tmp_path / "a b")
  assert script.count("sbatch <<'END_'\n#!/bin/bash\n") == 2
  assert f"mkdir -p '{tmp_path}/a b/a'\n" in script
  records = [json.dumps(line) for line in script.splitlines()]
  assert len(records) == len(set(records)) + 4  # sbatch, bash, END, END_
  assert not list(tmp_path.iterdir())


def events(folder):
  lines = (folder / "jobs.jsonl").read_text().splitlines()
  return [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize("error", ["timed out", "timed out, but taken"])
def test_what_is_refused_is_submitted_later_and_once(tmp_path, capsys, error):
  cluster = Cluster(refuses=[error])
  jobs = resumed(cluster, tmp_path, A, B)
  assert jobs.start(A) and jobs.start(B)
  cancel = f"to cancel them: cancel {jobs.job(B)}"
  assert jobs.interrupted(None).endswith(cancel)
  assert f"a: not submitted: {error}\n" in capsys.readouterr().out
  assert jobs.ended() == {} and jobs.running == {"a": A, "b": B}
  assert sorted(cluster.jobs.values()) == ["1", "2"]
  cluster.over |= {"1": Ended(0), "2": Ended(0)}
  assert jobs.ended() == {"a": Ended(0), "b": Ended(0)}


def test_what_is_refused_time_after_time_has_failed(tmp_path, capsys):
  cluster = Cluster(refuses=["timed out"])
  jobs = resumed(cluster, tmp_path, A, B)
  cluster.refuses = ["timed out", *["no account"] * 4]
  assert jobs.start(A)
  for _ in range(4):
    assert jobs.ended() == {}
  assert jobs.start(B)
  said = Ended(None, "no account", submitted=False)
  assert jobs.ended() == {"a": said} and jobs.running == {"b": B}
  printed = capsys.readouterr().out
  assert printed.count("a: not submitted: no account\n") == 1
  jobs.close(A)
  # The next command looks for that job, lest there be two.
  assert events(tmp_path) == ["submitting"] * 2 + ["submitted"]
  cluster.jobs[jobs.last["a"]["name"]] = "7"
  assert resumed(cluster, tmp_path, A, B).running == {"a": A, "b": B}


def test_a_limit_that_other_jobs_reach_is_waited_for(tmp_path):
  cluster = Cluster()
  jobs = resumed(cluster, tmp_path, A, B)
  assert jobs.start(A)
  cluster.refuses = ["QOSMaxSubmitJobPerUserLimit"] * 20
  assert jobs.start(B)
  for _ in range(10):
    assert jobs.ended() == {}
  cluster.over["1"] = Ended(0)
  assert jobs.ended() == {"a": Ended(0)}
  for _ in range(5):
    assert jobs.ended() == {}
  assert not jobs.ended()["b"].submitted


def test_a_refusal_is_not_tried_again_at_once(tmp_path):
  cluster = Cluster(refuses=["timed out"])
  jobs = submissions.Jobs(cluster, tmp_path, poll_seconds=60.0)
  assert jobs.start(A) and jobs.ended() == {} and not cluster.jobs


def test_a_command_that_is_not_there_ends_the_sweep(tmp_path, monkeypatch):
  def missing(*_):
    raise cluster_command.missing(["sbatch"], FileNotFoundError())

  cluster = Cluster()
  monkeypatch.setattr(cluster, "submit", missing)
  jobs = resumed(cluster, tmp_path, A)
  with pytest.raises(Refusal, match="sbatch is not installed here"):
    jobs.start(A)
  assert not jobs.running


def test_a_script_is_printed_and_nothing_is_changed(tmp_path):
  path = tmp_path / "jobs.jsonl"
  path.write_text('{"member": "a", "ev')
  submissions.render(Cluster(), [A, B], tmp_path)
  assert path.read_text() == '{"member": "a", "ev'


def test_a_table_shows_what_was_not_submitted(tmp_path, monkeypatch, capsys):
  cluster = Cluster(over={"1": Ended(1, "error: no")})
  jobs = submissions.Jobs(cluster, tmp_path, poll_seconds=0.0)
  monkeypatch.setattr(jobs, "catch_signals", lambda: None)
  cluster.refuses = ["no account"] * 5
  assert sweep._run([A, B], tmp_path, 1, jobs) == 1
  printed = capsys.readouterr().out
  assert printed.count("a: not submitted: no account\n") == 3  # And the table.
  rows = sweep.read_table(tmp_path / "results.jsonl")
  statuses = {name: row["status"] for name, row in rows.items()}
  assert statuses == {"a": "not submitted", "b": "exit 1"}
