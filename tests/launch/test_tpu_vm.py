"""TPU VMs: asked for, set up, preempted, asked for again, and deleted."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.waiting import until

ROOT = Path(__file__).parents[2]
LEAST = ("--zone=us-west4-a", "--accelerator_type=v5litepod-16")


@pytest.fixture
def start(tmp_path, cloud, background):
  """Starts the launcher over the stand-in, in a process of its own."""

  def begin(*words: str, more=()) -> subprocess.Popen:
    return background(
      [
        *(sys.executable, "-m", "launch.tpu_vm", *LEAST, "--bucket=bb"),
        *(f"--mount={tmp_path}", "--poll_seconds=0.2", *words),
        *("--", f"--workdir={tmp_path}/run", *more),
      ],
      stderr=subprocess.PIPE,
    )

  return begin


def calls(cloud: Path) -> list[str]:
  """The commands, in short, without looks at the state."""
  lines = (cloud / "calls").read_text().splitlines()
  found = []
  for words in map(json.loads, lines):
    script = [w for w in words if w.startswith("--command=")]
    verb = words[3]
    if script:
      verb = "set up" if "pip install" in script[0] else "run"
    if verb != "describe":
      found.append(verb)
  return found


def runs(folder: Path) -> list[list[str]]:
  lines = (folder / "run/ran").read_text().splitlines()
  return [json.loads(line) for line in lines]


ONCE = ["create", "scp", "set up", "run"]


def test_a_run_is_started_and_the_machines_are_deleted(start, cloud, tmp_path):
  waiting = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
  (cloud / "plan").write_text(json.dumps([waiting]))
  process = start("--project=p", "--spot", more=["--config.a=b c"])
  output, errors = process.communicate(timeout=60)
  assert process.returncode == 0, errors
  assert calls(cloud) == [*ONCE, "delete"]
  first = json.loads((cloud / "calls").read_text().splitlines()[1])
  assert first == [
    *("compute", "tpus", "queued-resources", "create", "run"),
    *("--node-id=run", "--accelerator-type=v5litepod-16"),
    *("--runtime-version=v2-alpha-tpuv5-lite", "--spot"),
    *("--project=p", "--zone=us-west4-a", "--quiet"),
  ]
  assert runs(tmp_path) == [[f"--workdir={tmp_path}/run", "--config.a=b c"]]
  for state in waiting:
    assert f"run: {state}\n" in output


def test_machines_that_are_preempted_are_asked_for_again(
  start, cloud, tmp_path
):
  active = ["ACTIVE"] * 10 + ["SUSPENDED"]
  (cloud / "plan").write_text(json.dumps([active, ["FAILED"], ["ACTIVE"]]))
  (tmp_path / "run/statuses").write_text("wait 0")
  process = start()
  output, errors = process.communicate(timeout=100)
  assert process.returncode == 0, errors
  assert calls(cloud) == [*ONCE, "delete", "create", "delete", *ONCE, "delete"]
  assert len(runs(tmp_path)) == 2
  assert "run: the TPUs were lost; restart 1" in output
  # What was left of the first start has been ended by the second.
  assert (tmp_path / "run/saved").exists()


@pytest.mark.parametrize(
  ("lives", "restarts"),
  [
    # Preempted while it runs: seen as it goes, and again when it has gone.
    ([["ACTIVE"] * 6 + ["SUSPENDING"] * 4 + ["SUSPENDED"], ["ACTIVE"]], 1),
    # Deleted by someone else while it runs.
    ([["ACTIVE"] * 6 + ["DELETING"] * 4 + [None], ["ACTIVE"]], 1),
    # Never had.
    ([["PROVISIONING", "FAILED"], ["ACTIVE"]], 1),
    # Gone before it is seen by this command.
    ([["SUSPENDING", "SUSPENDING", "SUSPENDED"], ["ACTIVE"]], 1),
    ([["DELETING", "DELETING", None], ["ACTIVE"]], 0),
  ],
)
def test_a_loss_is_counted_once(start, cloud, tmp_path, lives, restarts):
  (cloud / "plan").write_text(json.dumps(lives))
  if lives[0][0] == "ACTIVE":
    (tmp_path / "run/statuses").write_text("wait 0")
  process = start(f"--max_restarts={restarts}", "--poll_seconds=0.1")
  output, errors = process.communicate(timeout=60)
  assert process.returncode == 0, output + errors
  assert output.count("run: the TPUs were lost; restart") == restarts
  assert calls(cloud).count("create") == 2
  assert "not deleted" not in output


def test_an_end_that_can_be_mended_is_run_again_on_the_same_machines(
  start, cloud, tmp_path
):
  (tmp_path / "run/statuses").write_text("75 137 0")
  process = start("--keep")
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 0
  assert calls(cloud).count("create") == 1 and "delete" not in calls(cloud)
  assert len(runs(tmp_path)) == 3
  assert "to delete the TPUs: gcloud compute tpus queued-" in output
  # The same command finds them.
  (tmp_path / "run/statuses").write_text("1")
  assert start().wait(timeout=60) == 1
  assert calls(cloud).count("create") == 1 and calls(cloud)[-1] == "delete"


def test_restarts_are_counted(start, cloud, tmp_path):
  (tmp_path / "run/statuses").write_text("75 75 75")
  process = start("--max_restarts=1")
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 75 and len(runs(tmp_path)) == 2
  assert "main.py ended by 75, after 1 restarts" in output
  assert calls(cloud)[-1] == "delete"


def test_a_signal_saves_and_deletes(start, cloud, tmp_path):
  (tmp_path / "run/statuses").write_text("wait")
  process = start()
  until((tmp_path / "run/waits").exists)
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=60) == 128 + signal.SIGTERM
  assert (tmp_path / "run/saved").exists()
  assert calls(cloud)[-1] == "delete"


def test_what_is_out_of_sight_is_not_deleted(start, cloud, tmp_path):
  (tmp_path / "run/statuses").write_text("wait 0")
  process = start()
  until((tmp_path / "run/waits").exists)
  (cloud / "silent").touch()
  output, errors = process.communicate(timeout=60)
  assert process.returncode == 1
  assert errors == (
    "error: gcloud compute tpus queued-resources describe run failed: "
    "ERROR: (gcloud) connection timed out\n"
  )
  assert output.endswith(
    "the TPUs are left as they are, and the run may go on: the same command "
    "takes them over; to delete the TPUs: gcloud compute tpus queued-resources "
    "delete run --force --zone=us-west4-a --quiet\n"
  )
  assert calls(cloud) == ONCE
  # The same command takes them over.
  (cloud / "silent").unlink()
  assert start().wait(timeout=60) == 0
  assert calls(cloud) == [*ONCE, *ONCE[1:], "delete"]


@pytest.mark.parametrize(("failures", "status"), [(4, 0), (5, 1)])
def test_hosts_that_are_not_ready_are_tried_again(
  start, cloud, failures, status
):
  (cloud / "closed").write_text("x" * failures)
  process = start()
  output, errors = process.communicate(timeout=60)
  assert process.returncode == status
  said = (
    "gcloud compute tpus tpu-vm ssh run failed: ssh: connect to host: "
    "Connection refused"
  )
  assert output.count(f"{said}; trying again\n") == 4
  assert errors == (f"error: {said}\n" if status else "")
  tries = ["scp", "set up"] * 5
  end = [] if status else ["run"]
  assert calls(cloud) == ["create", *tries, *end, "delete"]


def test_hosts_that_are_out_of_sight_are_not_deleted(start, cloud):
  (cloud / "closed").write_text("x" * 20)
  process = start()
  until(lambda: (cloud / "calls").exists() and "set up" in calls(cloud))
  (cloud / "silent").touch()
  output, errors = process.communicate(timeout=60)
  assert process.returncode == 1 and "describe run failed" in errors
  assert "the same command takes them over" in output
  assert "delete" not in calls(cloud)


def test_machines_that_are_lost_as_they_are_set_up(start, cloud, tmp_path):
  (cloud / "closed").write_text("x")
  (cloud / "plan").write_text(json.dumps([["ACTIVE", "SUSPENDED"], ["ACTIVE"]]))
  process = start()
  output, errors = process.communicate(timeout=60)
  assert process.returncode == 0, errors
  assert calls(cloud) == [*ONCE[:3], "delete", *ONCE, "delete"]
  assert "run: the TPUs were lost; restart 1\n" in output
  assert len(runs(tmp_path)) == 1


@pytest.mark.parametrize("words", [(), ("--keep",)])
def test_what_may_have_been_created_is_deleted(start, cloud, words):
  (cloud / "cut").touch()
  process = start(*words)
  output, errors = process.communicate(timeout=60)
  assert process.returncode == 1 and errors.endswith("connection timed out\n")
  if words:
    assert "to delete the TPUs: gcloud compute tpus queued-" in output
  else:
    assert calls(cloud) == ["create", "delete"]


def test_what_another_command_created_is_left(start, cloud):
  (cloud / "raced").touch()
  process = start()
  output, errors = process.communicate(timeout=60)
  assert process.returncode == 1
  assert errors.endswith("ALREADY_EXISTS: Resource already exists\n")
  assert calls(cloud) == ["create"] and "delete" not in output


def test_what_cannot_be_had_is_told_in_one_line(start, cloud, tmp_path):
  (cloud / "refuse").touch()
  process = start()
  output, errors = process.communicate(timeout=60)
  assert process.returncode == 1 and calls(cloud) == ["create", "delete"]
  assert output.splitlines() == ["run: asking for TPUs"]
  assert errors == (
    "error: gcloud compute tpus queued-resources create run failed: ERROR: "
    "(gcloud.compute.tpus.queued-resources.create) no quota\n"
  )
  (tmp_path / "bin/gcloud").unlink()
  process = start()
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 1 and errors == (
    "error: gcloud is not installed here: install the Google Cloud CLI, or "
    "print what it would get by --dry_run\n"
  )


def test_dry_run_prints_a_script_that_does_it_once(start, cloud, tmp_path):
  process = start("--dry_run", "--num_slices=2", more=["--config.a=$x 'y'"])
  script, errors = process.communicate(timeout=60)
  assert process.returncode == 0 and not errors
  assert not (cloud / "calls").exists()
  path = tmp_path / "script.sh"
  path.write_text(script)
  checker = Path(sys.executable).parent / "shellcheck"
  # SC2016: what stands for the hosts' shells is not to be expanded here.
  done = subprocess.run(
    [checker, "--exclude=SC2016", path], capture_output=True, text=True
  )
  assert not done.stdout + done.stderr
  done = subprocess.run(["bash", path], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  verbs = calls(cloud)
  assert sorted(verbs[1:-1]) == ["run"] * 2 + ["scp"] * 2 + ["set up"] * 2
  assert verbs[0] == "create" and verbs[-1] == "delete"
  assert (
    runs(tmp_path) == [[f"--workdir={tmp_path}/run", "--config.a=$x 'y'"]] * 2
  )
  nodes = {
    words[4]
    for words in map(json.loads, (cloud / "calls").read_text().splitlines())
    if words[2:4] == ["tpu-vm", "ssh"]
  }
  assert nodes == {"run-0", "run-1"}
