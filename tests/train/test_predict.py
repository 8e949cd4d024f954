"""Prediction: order, resuming, and outputs of other makers."""

import json

import numpy as np
import pytest

from train import predict, validate


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same(rows, others):
  """Scores depend on who shared the batch, by roundings."""
  score = [row["score"] for row in others]
  assert [row["score"] for row in rows] == pytest.approx(score, abs=1e-4)
  assert [{**row, "score": 0.0} for row in rows] == [
    {**row, "score": 0.0} for row in others
  ]


def all_ids(this, inputs, start):
  """In place of predictions: what is to be written is not what is tested."""
  return ({"id": number} for number in range(start, len(inputs)))


@pytest.fixture
def inputs(finished, tmp_path):
  """A .jsonl of the first 21 sources, which evaluation has generated."""
  lines = (finished[1].parent / "pairs.jsonl").read_text().splitlines(True)
  (tmp_path / "in.jsonl").write_text("".join(lines[:21]))
  return str(tmp_path / "in.jsonl")


@pytest.fixture
def run(finished, tmp_path, one_device):
  config, folder, _ = finished

  def call(source, output="out.jsonl", **options):
    return predict.run(
      options.pop("config", config),
      str(folder),
      step=4,
      source=source,
      output=str(tmp_path / output),
      **options,
    )

  return call


def test_predictions_in_order_with_scores_and_resumable(
  run, inputs, finished, tmp_path, monkeypatch
):
  assert run(inputs) == 21
  rows = read(tmp_path / "out.jsonl")
  samples = read(finished[1] / "samples/valid-00000004.jsonl")
  assert [row["id"] for row in rows] == list(range(21))
  assert [row["source"] for row in rows] == [s["source"] for s in samples]
  assert [row["prediction"] for row in rows] == [
    s["prediction"] for s in samples
  ]
  # Greedy: no token is likelier, so at most log 270 a token is lost.
  assert all(-np.log(270) < row["score"] < 0 for row in rows)

  whole = (tmp_path / "out.jsonl").read_bytes()
  assert run(inputs) == 0
  assert (tmp_path / "out.jsonl").read_bytes() == whole

  # A crash while a line was written.
  torn = b"".join(whole.splitlines(True)[:11]) + b'{"id": 11, "sou'
  (tmp_path / "out.jsonl").unlink()
  (tmp_path / "out.jsonl.partial").write_bytes(torn)
  assert run(inputs) == 10
  assert_same(read(tmp_path / "out.jsonl"), rows)
  assert not (tmp_path / "out.jsonl.partial").exists()

  text = tmp_path / "in.txt"
  text.write_text("".join(f"{row['source']}\r\n" for row in rows[:9]))
  assert run(str(text), output="text.jsonl") == 9
  assert_same(read(tmp_path / "text.jsonl"), rows[:9])


def test_an_output_of_other_settings_is_refused(
  run, inputs, finished, tmp_path, monkeypatch
):
  monkeypatch.setattr(predict, "predict", all_ids)
  run(inputs)
  config = finished[0].copy_and_resolve_references()
  config.generation.max_length = 5
  with pytest.raises(
    validate.Refusal, match=r"generation\.max_length: 0 -> 5.*--overwrite"
  ):
    run(inputs, config=config)
  (tmp_path / "mine.jsonl").write_text("precious\n")
  with pytest.raises(validate.Refusal, match="--overwrite"):
    run(inputs, output="mine.jsonl")
  assert (tmp_path / "mine.jsonl").read_text() == "precious\n"
  assert run(inputs, config=config, overwrite=True) == 21
  with pytest.raises(validate.Refusal, match="5 -> 0"):
    run(inputs)


def test_another_field_is_another_output_and_batches_are_not(
  run, inputs, finished, monkeypatch
):
  monkeypatch.setattr(predict, "predict", all_ids)
  run(inputs)
  config = finished[0].copy_and_resolve_references()
  config.eval.batch_size = 16
  config.data.source_buckets, config.data.target_buckets = (8, 16), (8, 8)
  assert run(inputs, config=config) == 0
  config.data.source_field = "target"
  with pytest.raises(validate.Refusal, match=r"inputs: .*--overwrite"):
    run(inputs, config=config)


@pytest.mark.parametrize(
  "named", ["{}", "jsonl:{}", "jsonl:{}@all[:2]", "text:{}::{}", "jsonl:{}*"]
)
def test_the_input_is_never_overwritten(run, inputs, tmp_path, named):
  before = (tmp_path / "in.jsonl").read_bytes()
  with pytest.raises(validate.Refusal, match="is the input"):
    run(named.replace("{}", inputs), output="in.jsonl", overwrite=True)
  assert (tmp_path / "in.jsonl").read_bytes() == before


def test_lines_are_read_as_utf_8_or_named(tmp_path):
  path = tmp_path / "in.txt"
  path.write_bytes(b"\xef\xbb\xbfred\nblue\n")
  assert list(predict.TextFile(str(path)).read(0)) == ["red", "blue"]
  path.write_bytes(b"red\ncaf\xe9\n")
  with pytest.raises(ValueError, match=r"in\.txt: line 2 is not UTF-8"):
    predict.TextFile(str(path))


def test_a_crash_before_any_line_resumes(run, inputs, tmp_path, monkeypatch):
  def crash(this, inputs, start):
    raise KeyboardInterrupt
    yield

  monkeypatch.setattr(predict, "predict", crash)
  with pytest.raises(KeyboardInterrupt):
    run(inputs)
  assert (tmp_path / "out.jsonl.partial").exists()
  monkeypatch.setattr(predict, "predict", all_ids)
  assert run(inputs) == 21
  assert read(tmp_path / "out.jsonl") == [{"id": i} for i in range(21)]


@pytest.mark.parametrize(
  ("source", "output", "named"),
  [
    ("", "out.jsonl", "--input is missing"),
    ("in.csv", "out.jsonl", "--input=in.csv"),
    ("none.txt", "out.jsonl", "none.txt"),
    ("none.jsonl", "out.jsonl", "none.jsonl"),
    ("nowhere:x@y", "out.jsonl", "nowhere"),
  ],
)
def test_a_bad_input_is_refused(run, source, output, named):
  with pytest.raises(validate.Refusal, match=named):
    run(source, output)


def test_a_missing_output_is_refused(finished, inputs):
  with pytest.raises(validate.Refusal, match="--output is missing"):
    predict.run(finished[0], str(finished[1]), source=inputs, output="")


def test_a_second_command_for_one_output_is_refused(
  run, inputs, tmp_path, monkeypatch
):
  def predict_twice(this, inputs, start):
    with pytest.raises(validate.Refusal, match="written by another command"):
      run(str(inputs_path), overwrite=True)
    return all_ids(this, inputs, start)

  inputs_path = inputs
  monkeypatch.setattr(predict, "predict", predict_twice)
  assert run(inputs) == 21
  assert len(read(tmp_path / "out.jsonl")) == 21


@pytest.mark.parametrize("found", [20, 22])
def test_an_input_that_changes_gives_no_output(
  run, inputs, tmp_path, monkeypatch, found
):
  monkeypatch.setattr(
    predict,
    "predict",
    lambda this, inputs, start: ({"id": i} for i in range(start, found)),
  )
  with pytest.raises(validate.Failure, match=f"{found} lines for 21 sources"):
    run(inputs)
  assert not (tmp_path / "out.jsonl").exists()


def test_what_is_no_line_of_ours_is_predicted_again(
  run, inputs, tmp_path, monkeypatch
):
  monkeypatch.setattr(predict, "predict", all_ids)
  assert run(inputs) == 21
  whole = (tmp_path / "out.jsonl").read_bytes()
  # A stale partial file beside a complete one.
  (tmp_path / "out.jsonl.partial").write_bytes(b'{"id": 0}\n')
  assert run(inputs) == 0
  assert (tmp_path / "out.jsonl").read_bytes() == whole
  (tmp_path / "out.jsonl").unlink()
  zeros = whole.splitlines(True)[:5] + [b"\0" * 9 + b"\n", b'{"id": 6}\n']
  (tmp_path / "out.jsonl.partial").write_bytes(b"".join(zeros))
  assert run(inputs) == 16
  assert (tmp_path / "out.jsonl").read_bytes() == whole
  (tmp_path / "out.jsonl.made_by").write_text("")
  with pytest.raises(validate.Refusal, match=r"made_by is damaged"):
    run(inputs)
  with pytest.raises(validate.Refusal, match="is a folder"):
    run(inputs, output=".")


def test_an_empty_source_has_an_empty_prediction(run, inputs, tmp_path):
  (tmp_path / "in.txt").write_text("\nred blue 3\n\n\n")
  assert run(str(tmp_path / "in.txt")) == 4
  rows = read(tmp_path / "out.jsonl")
  assert [row["id"] for row in rows] == [0, 1, 2, 3]
  empty = [row["prediction"] == "" and row["score"] is None for row in rows]
  assert empty == [True, False, True, True]


def test_several_predictions_are_lists(run, inputs, finished, tmp_path):
  config = finished[0].copy_and_resolve_references()
  config.generation.num_beams = 3
  config.generation.num_return_sequences = 2
  run(inputs, config=config)
  for row in read(tmp_path / "out.jsonl"):
    assert len(row["prediction"]) == len(row["score"]) == 2
    assert row["score"][0] >= row["score"][1]
