"""metrics.jsonl: a step once, torn lines dropped, equal from run to run."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from train.workdir.metrics_file import MetricsWriter, read_rows


def _write(workdir, steps, cut=-1):
  writer = MetricsWriter(workdir)
  writer.cut(cut)
  for step in steps:
    writer.write(step, {"train/loss": np.float32(1 / 3), "train/pairs": step})
  writer.close()


def test_a_row_is_one_line_with_plain_numbers(tmp_path):
  writer = MetricsWriter(tmp_path)
  writer.cut(-1)
  values = {
    "train/loss": jnp.float32(0.1),
    "eval/valid/loss": np.float64(2.5),
    "train/pairs": 64,
    "eval/valid/ppl": math.inf,
  }
  writer.write(0, values)
  text = (tmp_path / "metrics.jsonl").read_text()  # Before close.
  writer.close()
  assert text == (
    '{"step": 0, "eval/valid/loss": 2.5, "eval/valid/ppl": null, '
    '"train/loss": 0.10000000149011612, "train/pairs": 64}\n'
  )


def test_a_step_appears_once(tmp_path):
  writer = MetricsWriter(tmp_path)
  with pytest.raises(ValueError, match="call cut"):
    writer.write(1, {"train/loss": 1.0})
  writer.cut(-1)
  writer.write(1, {"train/loss": 1.0})
  for step in (0, 1):
    with pytest.raises(ValueError, match=f"step {step} after step 1"):
      writer.write(step, {"train/loss": 1.0})
  writer.close()


def test_resuming_cuts_and_gives_the_same_file(tmp_path):
  _write(tmp_path / "whole", range(1, 8))
  _write(tmp_path / "cut", range(1, 6))
  path = tmp_path / "cut/metrics.jsonl"
  with open(path, "a") as stream:
    stream.write('{"step": 6, "train/lo')
  assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4, 5]
  _write(tmp_path / "cut", range(4, 8), cut=3)
  assert path.read_text() == (tmp_path / "whole/metrics.jsonl").read_text()
  # A run that goes on from nothing writes all of it again.
  _write(tmp_path / "cut", range(1, 8), cut=-1)
  assert path.read_text() == (tmp_path / "whole/metrics.jsonl").read_text()
  assert not list((tmp_path / "cut").glob("metrics.jsonl.*"))


@pytest.mark.parametrize(
  "line", ['{"loss"', '{"step": Infinity}', "[" * 50_000, "secret " * 1000]
)
def test_a_line_that_no_kill_explains_is_named(tmp_path, line):
  path = tmp_path / "metrics.jsonl"
  path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
  with pytest.raises(ValueError, match="line 2 is no row") as caught:
    MetricsWriter(tmp_path).cut(3)
  assert len(str(caught.value)) < 300 + len(str(path))


def test_a_disabled_writer_leaves_no_trace(tmp_path):
  writer = MetricsWriter(tmp_path, enabled=False)
  writer.cut(-1)
  writer.write(1, {"train/loss": 1.0})
  writer.close()
  assert list(tmp_path.iterdir()) == []


def _events(workdir):
  """TensorBoard's records: length, its checksum, the event, its checksum."""
  for path in sorted((workdir / "tensorboard").iterdir()):
    data = path.read_bytes()
    while data:
      size = int.from_bytes(data[:8], "little")
      yield event_pb2.Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]


def test_tensorboard_gets_the_same_values(tmp_path):
  _write(tmp_path, [1, 2])
  scalars = {
    (event.step, value.tag): value.simple_value
    for event in _events(tmp_path)
    for value in event.summary.value
  }
  rows = read_rows(tmp_path / "metrics.jsonl")
  for row in rows:
    for name in ("train/loss", "train/pairs"):
      assert scalars[row["step"], name] == np.float32(row[name])
  assert json.dumps(rows[0]).startswith('{"step": 1')
