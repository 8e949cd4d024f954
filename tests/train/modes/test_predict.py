"""Prediction: order, resuming, and outputs of other makers."""

import json

import numpy as np
import pytest

from data import sources
from train.errors import Failure, Refusal
from train.modes import predict


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
  return (_line(one.given) for one in inputs.read(start))


def _line(given):
  return {**given, "prediction": "", "score": None}


def own(row):
  """What an object has from the output alone."""
  return {k: row[k] for k in ("id", "source", "prediction", "score")}


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
  # The other field of its record.
  assert [row["target"] for row in rows] == [s["target"] for s in samples]
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
  assert_same(read(tmp_path / "text.jsonl"), [own(row) for row in rows[:9]])


def test_an_output_of_other_settings_is_refused(
  run, inputs, finished, tmp_path, monkeypatch
):
  monkeypatch.setattr(predict, "predict", all_ids)
  run(inputs)
  config = finished[0].copy_and_resolve_references()
  config.generation.max_length = 5
  with pytest.raises(
    Refusal, match=r"generation\.max_length: 9 -> 5.*--overwrite"
  ):
    run(inputs, config=config)
  (tmp_path / "mine.jsonl").write_text("precious\n")
  with pytest.raises(Refusal, match="--overwrite"):
    run(inputs, output="mine.jsonl")
  assert (tmp_path / "mine.jsonl").read_text() == "precious\n"
  assert run(inputs, config=config, overwrite=True) == 21
  with pytest.raises(Refusal, match="5 -> 9"):
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
  with pytest.raises(Refusal, match=r"inputs: .*--overwrite"):
    run(inputs, config=config)


@pytest.mark.parametrize(
  "named", ["{}", "jsonl:{}", "jsonl:{}@all[:2]", "text:{}::{}", "jsonl:{}*"]
)
def test_the_input_is_never_overwritten(run, inputs, tmp_path, named):
  before = (tmp_path / "in.jsonl").read_bytes()
  with pytest.raises(Refusal, match="is the input"):
    run(named.replace("{}", inputs), output="in.jsonl", overwrite=True)
  assert (tmp_path / "in.jsonl").read_bytes() == before


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
  assert [row["id"] for row in read(tmp_path / "out.jsonl")] == list(range(21))


@pytest.mark.parametrize(
  ("source", "output", "named"),
  [
    ("", "out.jsonl", "--input is missing"),
    ("in.csv", "out.jsonl", "--input=in.csv: there is no such file"),
    ("in.doc", "out.jsonl", "--input=in.doc: name a file that ends in .txt, "),
    ("in.txt.gz", "out.jsonl", "--input=in.txt.gz: name a file that ends"),
    ("tsv:in.tsv", "out.jsonl", "--input: .* did you mean 'csv:in.tsv'"),
    ("none.txt", "out.jsonl", "none.txt"),
    ("none.jsonl", "out.jsonl", "none.jsonl"),
    ("nowhere:x@y", "out.jsonl", "nowhere"),
  ],
)
def test_a_bad_input_is_refused(run, source, output, named):
  with pytest.raises(Refusal, match=named):
    run(source, output)


def test_a_missing_output_is_refused(finished, inputs):
  with pytest.raises(Refusal, match="--output is missing"):
    predict.run(finished[0], str(finished[1]), source=inputs, output="")


def test_a_second_command_for_one_output_is_refused(
  run, inputs, tmp_path, monkeypatch
):
  def predict_twice(this, inputs, start):
    with pytest.raises(Refusal, match="written by another command"):
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
    lambda this, inputs, start: (_line({"id": i}) for i in range(start, found)),
  )
  with pytest.raises(Failure, match=f"{found} lines for 21 sources"):
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
  with pytest.raises(Refusal, match=r"made_by is damaged"):
    run(inputs)
  with pytest.raises(Refusal, match="is a folder"):
    run(inputs, output=".")


def test_an_empty_source_has_an_empty_prediction(run, inputs, tmp_path):
  (tmp_path / "in.txt").write_text("\nred blue 3\n\n\n")
  assert run(str(tmp_path / "in.txt")) == 4
  rows = read(tmp_path / "out.jsonl")
  assert [row["id"] for row in rows] == [0, 1, 2, 3]
  empty = [row["prediction"] == "" and row["score"] is None for row in rows]
  assert empty == [True, False, True, True]


RECORDS = [
  {"id": "a7", "source": "red blue 3", "label": [1, {"x": None}]},
  {"source": "green pink 7", "score": 0.5, "input_score": 1, "n": 1e400},
  {"id": 12, "source": "red", "prediction": "old", "half": "\ud83d"},
  {"id": "a7", "source": "blue", "é": "é", "id2": 3},
  {"id": None, "source": "grey red 2", "prediction": None},
  # As a table without a number in that row has it.
  {"id": "", "source": "pink 5"},
]
OTHERS = [
  {"id": "a7", "label": [1, {"x": None}]},
  {"id": 1, "input_input_score": 0.5, "input_score": 1, "n": None},
  {"id": 12, "input_prediction": "old", "half": "\ud83d"},
  {"id": "a7", "é": "é", "id2": 3},
  {"id": 4, "input_prediction": None},
  {"id": 5},
]


def test_a_record_keeps_its_id_and_its_other_fields(run, tmp_path):
  source = tmp_path / "own.jsonl"
  source.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
  assert run(str(source)) == 6
  whole = (tmp_path / "out.jsonl").read_bytes()
  rows = read(tmp_path / "out.jsonl")
  for row, record, others in zip(rows, RECORDS, OTHERS, strict=True):
    assert list(row)[:4] == ["id", "source", "prediction", "score"]
    assert row.pop("source") == record["source"]
    assert isinstance(row.pop("prediction"), str) and row.pop("score") < 0
    assert row == others
  assert "é".encode() in whole

  # What is there already is recognised by all of it, not by its number.
  lines = whole.splitlines(True)
  (tmp_path / "out.jsonl").unlink()
  (tmp_path / "out.jsonl.partial").write_bytes(b"".join(lines[:3]))
  assert run(str(source)) == 3
  assert [own(row) for row in read(tmp_path / "out.jsonl")][:3] == [
    own(json.loads(line)) for line in lines[:3]
  ]
  (tmp_path / "out.jsonl").unlink()
  (tmp_path / "out.jsonl.partial").write_bytes(lines[0] + lines[3])
  assert run(str(source)) == 5


def test_fields_of_a_table_are_passed_on(run, tmp_path, monkeypatch):
  monkeypatch.setattr(predict, "predict", all_ids)
  (tmp_path / "in.csv").write_text("id,source,source_2,score\n07,red,x,1\n")
  assert run(f"csv:{tmp_path}/in.csv") == 1
  assert read(tmp_path / "out.jsonl") == [
    {
      "id": "07",
      "source": "red",
      "prediction": "",
      "score": None,
      "source_2": "x",
      "input_score": "1",
    }
  ]


def test_another_source_field_loses_nothing(
  run, finished, tmp_path, monkeypatch
):
  monkeypatch.setattr(predict, "predict", all_ids)
  config = finished[0].copy_and_resolve_references()
  for field, expected in (
    ("text", {"id": 5, "source": "t", "input_source": "s"}),
    ("id", {"id": 0, "source": "i", "input_source": "s", "text": "t"}),
  ):
    record = {"source": "s", "id": "i" if field == "id" else 5, "text": "t"}
    (tmp_path / "in.jsonl").write_text(json.dumps(record) + "\n")
    config.data.source_field = field
    run(str(tmp_path / "in.jsonl"), config=config, overwrite=True)
    (row,) = read(tmp_path / "out.jsonl")
    assert row == _line(expected)


def test_truncated_sources_are_counted(run, tmp_path, caplog):
  lines = ["red " * 40, "blue", "", "green " * 15]
  (tmp_path / "in.txt").write_text("".join(f"{line}\n" for line in lines))
  run(str(tmp_path / "in.txt"))
  said = [m for m in caplog.messages if "truncated" in m]
  assert said == [
    "2 of the 4 sources that were predicted now are longer than "
    "data.max_source_length = 16: they were truncated"
  ]


def test_several_predictions_are_lists(run, inputs, finished, tmp_path):
  config = finished[0].copy_and_resolve_references()
  config.generation.num_beams = 3
  config.generation.num_return_sequences = 2
  run(inputs, config=config)
  for row in read(tmp_path / "out.jsonl"):
    assert len(row["prediction"]) == len(row["score"]) == 2
    assert row["score"][0] >= row["score"][1]


def test_training_pairs_are_read_by_another_run(
  run, inputs, finished, tmp_path
):
  run(inputs)
  rows = read(tmp_path / "out.jsonl")
  config = finished[0].copy_and_resolve_references()
  with config.unlocked():
    config.data.target_field = "summary"
  pairs = {"output": "pairs.jsonl", "config": config, "training_pairs": True}
  assert run(inputs, **pairs) == 21
  written = read(tmp_path / "pairs.jsonl")
  names = ["id", "source", "summary", "score", "target"]
  assert all(list(row) == names for row in written)
  again = sources.open_source(
    f"jsonl:{tmp_path}/pairs.jsonl", fields=["source", "summary"]
  )
  for number, row in enumerate(rows):
    assert again[number]["source"] == row["source"]
    assert again[number]["summary"] == row["prediction"]
    # The reference, which the prediction does not stand in for.
    assert written[number]["target"] == row["target"]

  # A killed command goes on by the names that it has written.
  lines = (tmp_path / "pairs.jsonl").read_bytes().splitlines(True)
  (tmp_path / "pairs.jsonl").unlink()
  (tmp_path / "pairs.jsonl.partial").write_bytes(b"".join(lines[:15]))
  assert run(inputs, **pairs) == 6
  with pytest.raises(Refusal, match=r"made by something else \(fields"):
    run(inputs, output="pairs.jsonl", config=config)

  config.generation.num_beams = config.generation.num_return_sequences = 2
  with pytest.raises(Refusal, match="a source has one target; set gen"):
    run(inputs, **pairs)
  config.data.target_field = "score"
  with pytest.raises(Refusal, match="a field 'score' of its own"):
    run(inputs, **pairs)


def test_a_reference_moves_aside_for_a_training_target(
  run, tmp_path, monkeypatch
):
  monkeypatch.setattr(
    predict,
    "predict",
    lambda this, inputs, start: (
      {**one.given, "target": "", "score": None} for one in inputs.read(start)
    ),
  )
  (tmp_path / "in.jsonl").write_text('{"source": "s", "target": "t"}\n')
  run(str(tmp_path / "in.jsonl"), training_pairs=True)
  assert read(tmp_path / "out.jsonl") == [
    {"id": 0, "source": "s", "target": "", "score": None, "input_target": "t"}
  ]
