"""JobSets by kubectl: submitted, run by a stand-in, ended, and refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from absl import flags
from hypothesis import strategies as st

from launch import exit_status, gke
from launch.program import Program, Refusal
from tests.launch.waiting import until

ROOT = Path(__file__).parents[2]
# Notes its arguments, and ends by the next status.
STAND_IN = """
import json, sys
flags = dict(a.lstrip("-").partition("=")[::2] for a in sys.argv[1:])
folder = flags["workdir"]
with open(f"{folder}/ran", "a") as file:
  file.write(json.dumps(sys.argv[1:]) + "\\n")
with open(f"{folder}/statuses", "r+") as file:
  ends = file.read().split()
  file.seek(0)
  file.truncate()
  file.write(" ".join(ends[1:]))
end = int(ends[0]) if ends else 0
if end:
  print("error: it ended by", end, file=sys.stderr)
sys.exit(end)
"""
LEAST = ("--image=i:1", "--topology=v5e:2x2", "--bucket=bb")


def launcher(*words: str) -> gke.Gke:
  own = flags.FlagValues()
  gke.define(own)
  own(["gke", *words])
  return gke.Gke(own)


@pytest.fixture
def cluster(tmp_path, tools, monkeypatch):
  folder = tmp_path / "cluster"
  folder.mkdir()
  (tmp_path / "main.py").write_text(STAND_IN)
  monkeypatch.setenv("STAND_IN_KUBECTL", str(folder))
  monkeypatch.setenv("STAND_IN_MAIN", str(tmp_path / "main.py"))
  tools("kubectl_stand_in.py", "kubectl")
  return folder


@pytest.fixture
def submit(tmp_path, cluster):
  """`submit(ends, name)`: a JobSet whose main.py ends so; and its command."""
  number = iter(range(1000))

  def begin(ends="", *words, more=()):
    name = f"run-{next(number)}"
    workdir = tmp_path / name
    workdir.mkdir()
    (workdir / "statuses").write_text(ends)
    command = Program((f"--workdir={workdir}", *more))
    found = launcher(*LEAST, f"--mount={tmp_path}", *words)
    assert found.find(name, command) is None
    assert found.submit(command, name) == name
    assert found.find(name, command) == name
    return found, name, command, workdir

  return begin


def result(found, name, command):
  return until(lambda: found.ended({name: command}))[name]


def runs(workdir: Path) -> list[list[str]]:
  return list(map(json.loads, (workdir / "ran").read_text().splitlines()))


def test_a_jobset_restarts_until_it_is_done(submit):
  found, name, command, workdir = submit("75 143")
  assert result(found, name, command) == exit_status.Ended(0)
  assert len(runs(workdir)) == 3


def test_an_error_that_would_come_again_is_the_last(submit):
  found, name, command, workdir = submit("1")
  ended = exit_status.Ended(1, "error: it ended by 1")
  assert result(found, name, command) == ended
  assert len(runs(workdir)) == 1


def test_restarts_are_counted(submit):
  found, name, command, workdir = submit("75 75 75", "--max_restarts=1")
  assert result(found, name, command).status == 75
  assert len(runs(workdir)) == 2


def test_the_end_that_would_come_again_is_the_one_that_is_told(cluster, submit):
  """The pods that waited for the one that failed ended by other statuses."""
  found, name, command, _ = submit("1")
  result(found, name, command)
  path = cluster / f"{name}.json"
  ends = [(137, "Killed"), (1, "error: no such key"), (75, "lost")]
  pods = [{"exitCode": status, "message": said} for status, said in ends]
  path.write_text(json.dumps({"state": "Failed", "pods": pods}))
  ended = found.ended({name: command})[name]
  assert ended == exit_status.Ended(1, "error: no such key")
  path.unlink()
  assert found.ended({name: command})[name].status is None


TEXT = st.text(
  st.characters(exclude_characters="\0", codec="utf-8") | st.sampled_from("$()")
)


@hypothesis.given(st.lists(TEXT, max_size=20))
@hypothesis.settings(
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
  max_examples=4,
)
@hypothesis.example(
  ["$(JOB_COMPLETION_INDEX)", "$$(A)", "$", "'", '"', "1\n 2\n", "a: b", "\x85"]
)
def test_flags_arrive_as_they_were_given(submit, values):
  given = [f"--config.x={value}" for value in values]
  found, name, command, workdir = submit(more=given)
  assert result(found, name, command).status == 0
  assert runs(workdir) == [[f"--workdir={workdir}", *given]]


@pytest.mark.parametrize(
  ("words", "workdir", "said"),
  [
    (LEAST[1:], "/bucket/a", "--image is missing"),
    (LEAST[::2], "/bucket/a", "pass one of --topology and --gpu"),
    ((*LEAST, "--gpu=h100:8"), "/bucket/a", "one of --topology and --gpu"),
    ((*LEAST, "--nodes=2"), "/bucket/a", "--nodes=2 belongs to --gpu"),
    ((*LEAST, "--topology=v5e:3x3"), "/bucket/a", "no such slice"),
    (LEAST[:2], "/bucket/a", "pass one of --bucket and --nfs: every host"),
    ((*LEAST, "--bucket=gs://b"), "/bucket/a", "--bucket=gs://b: write its"),
    ((*LEAST[:2], "--nfs=/runs"), "/nfs/a", "--nfs=/runs: write server:/path"),
    ((*LEAST, "--mount=data"), "/bucket/a", "--mount=data: write a folder"),
    (LEAST, "runs/a", "--workdir=runs/a is not seen by every host"),
    (
      LEAST,
      "/home/a",
      "the shared folder is /bucket, as in --workdir=/bucket/",
    ),
    (LEAST, "/bucket/../a", "is not seen by every host"),
    ((*LEAST, "--name=B"), "/bucket/a", "--name=B: write at most"),
  ],
)
def test_what_no_cluster_would_take_is_refused(words, workdir, said):
  with pytest.raises(Refusal) as refusal:
    launcher(*words).name(Program((f"--workdir={workdir}",)))
  assert said in str(refusal.value)


def launch(*words: str):
  return subprocess.run(
    [sys.executable, "-m", "launch.gke", *words],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=60,
  )


def test_the_command_prints_a_manifest_that_can_be_applied(cluster, tmp_path):
  workdir = tmp_path / "run"
  workdir.mkdir()
  (workdir / "statuses").write_text("")
  words = [*LEAST, f"--mount={tmp_path}", "--", f"--workdir={workdir}"]
  dry = launch("--dry_run", *words)
  assert dry.returncode == 0 and not list(cluster.iterdir())
  done = launch(*words)
  assert done.stdout == "run\n" and not done.stderr
  assert (cluster / "run.yaml").read_text() == dry.stdout
  # There is one JobSet of a name.
  done = launch(*words)
  assert done.returncode == 1 and done.stderr == (
    "error: --name=run: this JobSet is there already, running or ended: pass "
    "another --name, or first kubectl delete jobset run --namespace=default\n"
  )


def test_what_cannot_be_submitted_is_told_in_one_line(cluster, tmp_path):
  words = [*LEAST, "--", "--workdir=/bucket/a"]
  (cluster / "refuse").touch()
  done = launch(*words)
  assert done.returncode == 1 and done.stderr == (
    'error: kubectl apply failed: error: no matches for kind "JobSet"\n'
  )
  (tmp_path / "bin/kubectl").unlink()
  done = launch(*words)
  assert done.returncode == 1 and done.stderr.startswith(
    "error: kubectl is not installed here: install it, and get the cluster's"
  )
  done = launch(*LEAST)
  assert done.returncode == 1
  assert done.stderr.startswith("error: there are no flags of main.py: pass")
