"""What several processes make is what one makes, and either goes on."""

import pytest

from tests.train.processes import runs

pytestmark = pytest.mark.timeout(1200)


def flags(folder, *more):
  overrides = {
    "train.log_every_steps": 1,
    "train.eval_every_steps": 0,
    "train.checkpoint_every_steps": 2,
    "eval.text_examples": 5,
  }
  return [
    "--config=configs/dates.py:smoke",
    f"--workdir={folder}",
    *(f"--config.{name}={value}" for name, value in overrides.items()),
    *more,
  ]


def losses(folder):
  return [row["train/loss"] for row in runs.rows(folder)]


@pytest.fixture(scope="module")
def one(tmp_path_factory, one_device_env):
  """The folder of a run of one process; do not write there."""
  folder = tmp_path_factory.mktemp("one")
  runs.finish(1, folder, flags(folder / "run"), one_device_env)
  return folder / "run"


@pytest.mark.sample(2, group="several processes")
def test_another_number_of_processes_goes_on_alike(
  one, tmp_path, one_device_env
):
  workdir = tmp_path / "run"
  for steps, count in ((2, 2), (4, 4), (6, 1)):
    more = f"--config.train.steps={steps}"
    # As one schedule that is stopped, not three.
    constant = "--config.optim.schedule=constant"
    runs.finish(
      count,
      tmp_path / str(count),
      flags(workdir, more, constant),
      one_device_env,
    )
  reference = tmp_path / "reference"
  runs.finish(
    1,
    tmp_path / "whole",
    flags(reference, "--config.optim.schedule=constant"),
    one_device_env,
  )
  assert losses(workdir) == pytest.approx(losses(reference), rel=1e-5)
  counts = ("train/pairs", "train/source_tokens", "train/target_tokens")
  for mine, theirs in zip(
    runs.rows(workdir), runs.rows(reference), strict=True
  ):
    assert [mine[name] for name in counts] == [theirs[name] for name in counts]
  logs = sorted(path.name for path in (workdir / "logs").iterdir())
  assert logs == [f"process-{number:05d}.log" for number in range(4)]


@pytest.mark.sample(2, group="several processes")
@pytest.mark.parametrize("count", [2, 4])
def test_evaluation_measures_what_one_process_measures(
  one, tmp_path, one_device_env, count
):
  found = {}
  for processes in (1, count):
    text = runs.finish(
      processes,
      tmp_path / str(processes),
      flags(one, "--mode=eval"),
      one_device_env,
    )
    found[processes] = dict(
      line.split()
      for line in text.splitlines()
      if line.startswith("eval/") and len(line.split()) == 2
    )
    samples = one / "samples/test-00000006.jsonl"
    found[f"texts {processes}"] = samples.read_text()
  assert len(found[1]) > 4
  assert found[1].keys() == found[count].keys()
  for name, value in found[1].items():
    assert float(found[count][name]) == pytest.approx(float(value), abs=1e-4)
  assert found["texts 1"] == found[f"texts {count}"]


@pytest.mark.sample(2, group="several processes")
def test_processes_prepare_what_one_prepares(tmp_path, one_device_env):
  for count in (1, 3):
    text = runs.finish(
      count,
      tmp_path / f"output{count}",
      flags(tmp_path / str(count), "--mode=prepare"),
      one_device_env,
    )
    assert text.count("checksums verified") == 3
  one, several = (
    {
      path.relative_to(tmp_path / count / "store"): path.read_bytes()
      for path in (tmp_path / count / "store").rglob("*")
      if path.is_file() and path.suffix not in (".json", ".lock")
    }
    for count in ("1", "3")
  )
  assert one and one == several


@pytest.mark.sample(2, group="several processes")
@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("--config.seed", "7", "the configuration of process 1 is not that of"),
    ("--workdir", "elsewhere", "is not the folder of process 0: name one that"),
  ],
)
def test_processes_that_were_told_different_things_all_say_so(
  tmp_path, one_device_env, monkeypatch, name, value, message
):
  begin = runs.subprocess.Popen

  def differing(command, **options):
    if "--process_id=1" in command:
      word = f"{tmp_path}/{value}" if name == "--workdir" else value
      command = [*command, f"{name}={word}"]
    return begin(command, **options)

  monkeypatch.setattr(runs.subprocess, "Popen", differing)
  started = runs.start(2, tmp_path, flags(tmp_path / "run"), one_device_env)
  assert started.wait(runs.MINUTE) == [1, 1], started.tail()
  for process in (0, 1):
    [line] = [
      line
      for line in started.text(process).splitlines()
      if line.startswith("error: ")
    ]
    assert message in line
  assert not (tmp_path / "run/config.json").exists()
