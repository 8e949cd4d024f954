"""The command line: one clear line for what is wrong, and a run that runs."""

import subprocess
import sys

import pytest

DATES = "--config=configs/dates.py:smoke"


@pytest.fixture
def main(one_device_env):
  """Runs main.py with the arguments that it is called with."""
  # A program for eight devices takes longer to compile.
  return lambda *arguments: subprocess.run(
    [sys.executable, "main.py", *arguments],
    capture_output=True,
    text=True,
    timeout=500,
    env=one_device_env,
  )


@pytest.mark.sample(2)
@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (
      [DATES, "--workdir={}", "--config.optim.lrr=1e-4"],
      "no key 'optim.lrr'; did you mean 'optim.lr'?",
    ),
    (
      ["--config=configs/none.py", "--workdir={}", "--config.seed=1"],
      "--config=configs/none.py: there is no file configs/none.py (from",
    ),
    (
      [DATES, "--workdir={}", "--config.train.steps=a"],
      "train.steps takes one",
    ),
    ([DATES, "--workdir={}", "--steps=3"], "mean '--config.train.steps'?"),
    ([DATES, "--workdir={}", "--step=a"], "--step=a: --step takes one whole"),
    ([DATES, "--workdir={}", "--nooverwrite=3"], "--nooverwrite=3"),
    ([DATES, "--workdir=gs://b/run"], "--workdir=gs://b/run"),
    (
      [DATES, "--workdir={}", "--input=in.txt", "--output=out.jsonl"],
      "--input is not used by --mode=train: leave it out, or add "
      "--mode=predict",
    ),
  ],
)
def test_a_wrong_command_ends_with_one_line(main, arguments, named, tmp_path):
  workdir = tmp_path / "run"
  done = main(*(argument.format(workdir) for argument in arguments))
  assert done.returncode == 1
  assert done.stderr.startswith("error: ")
  assert named in done.stderr
  assert "Traceback" not in done.stderr
  assert not workdir.exists()


@pytest.mark.parametrize(
  ("line", "named"),
  [
    ("--config.optim.lrr=1e-4", "no key 'optim.lrr'; did you mean 'optim.lr'?"),
    ("--config.train.steps=a", "train.steps=a"),
    ("--flagfile={}/none", "Unable to open flagfile: [Errno 2] No such file"),
  ],
)
def test_a_flagfile_is_checked_as_the_command_line_is(
  main, line, named, tmp_path
):
  """Also one that another one names."""
  (tmp_path / "inner").write_text(f"{line.format(tmp_path)}\n")
  (tmp_path / "outer").write_text(f"{DATES}\n--flagfile={tmp_path}/inner\n")
  done = main(f"--workdir={tmp_path}/run", f"--flagfile={tmp_path}/outer")
  assert done.returncode == 1
  assert done.stderr.startswith("error: ") and named in done.stderr
  assert done.stderr.count("\n") == 1


def test_inspection_needs_no_run(main, tmp_path):
  done = main("--mode=inspect", DATES, f"--workdir={tmp_path}/run")
  assert done.returncode == 0, done.stderr
  assert "decoder_targets" in done.stdout
  assert "--config.data.pack_source_length=" in done.stdout
  made = {path.name for path in (tmp_path / "run").iterdir()}
  assert made <= {"tokenizers", "store", "compiled"}


def test_the_smoke_variant_trains_and_overrides_apply(main, tmp_path):
  (tmp_path / "flags").write_text(f"{DATES}\n--config.train.steps=3\n")
  arguments = [
    f"--flagfile={tmp_path}/flags",
    f"--workdir={tmp_path}/run",
    "--config.eval.text_examples=-1",
  ]
  done = main(*arguments)
  assert done.returncode == 0, done.stderr
  assert f"finished at step 3 of {tmp_path}/run" in done.stdout
  assert "eval/valid/loss" in done.stdout
  assert "special tokens:" in done.stderr
  # Libraries that only report progress are not heard.
  assert "orbax" not in done.stderr
