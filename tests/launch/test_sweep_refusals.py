"""What is no sweep is refused with what to write instead."""

import subprocess
import sys
from pathlib import Path

import pytest

from launch import sweep

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
  ("command", "said"),
  [
    (
      "sweep --config=c.py --workdir runs/x --config.seed=3 --dry_run",
      "--config.seed is no flag of this command: flags of main.py stand after "
      "--, as in: --config=c.py --workdir runs/x --dry_run -- --config.seed=3",
    ),
    (
      "sweep --nodry_run --config.seed 3 -- --config.train.steps=3",
      "as in: --nodry_run -- --config.seed 3 --config.train.steps=3",
    ),
    (
      "sweep --dryrun",
      "--dryrun is no flag of this command; did you mean --dr",
    ),
    ("sweep --dry_run=x", "--dry_run=x: "),
    (
      "sweep --config=configs/dates.py --workdir=x config.seed=3",
      "'config.seed=3' is no flag of main.py",
    ),
    (
      "local --processes=2 --config=c.py --workdir=runs/x",
      "as in: --processes=2 -- --config=c.py --workdir=runs/x",
    ),
    ("local --process=2 -- --config=c.py", "did you mean --processes?"),
    ("local", "no flags of main.py: pass them after --"),
    ("sweep --workdir=x", "--config is missing: pass a file with a sweep"),
    ("sweep --config=configs/dates.py", "--workdir is missing: pass a folder"),
    (
      f"sweep --config=configs/dates.py --workdir=/tmp/{'x' * 300}",
      ": File name too long: ",
    ),
    ("local --processes=two -- --config=c.py", "--processes=two: "),
    (
      "slurm --account=lab --config=c.py --workdir=runs/x",
      "as in: --account=lab -- --config=c.py --workdir=runs/x",
    ),
    ("gke --image=i", "no flags of main.py: pass them after --"),
    ("tpu_vm --zone=us-west4-a -- --config=c.py", "--accelerator_type is mis"),
    ("sweep --config=c.py --launcher=slrm", "--launcher=slrm: value should"),
  ],
)
def test_a_flag_on_the_wrong_side_is_told_where_it_goes(command, said):
  name, *arguments = command.split()
  done = subprocess.run(
    [sys.executable, "-m", f"launch.{name}", *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 1
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
  assert said in done.stderr


def test_a_folder_that_cannot_be_made_is_refused():
  with pytest.raises(
    sweep.Refusal, match="--workdir=/proc/x/y: /proc/x: No such file"
  ):
    sweep.run([], Path("/proc/x/y"))
