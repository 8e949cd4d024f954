"""A file of predictions: what it may be, and how it fits a set."""

import dataclasses
import json
import pathlib

import pytest

from data import sources
from train.errors import Refusal
from train.modes import scored_file

PATH = pathlib.Path("file.jsonl")


def write(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


@pytest.fixture
def records(tmp_path):
  """Four pairs with ids of their own, one of them without a source."""
  rows = [
    {"source": f"s {i}", "target": f"t{i}", "id": own}
    for i, own in enumerate(("a", "b", "", "d"))
  ]
  rows[1]["source"] = "  "
  return open_set(write(tmp_path / "set.jsonl", rows))


def open_set(path):
  return sources.open_source(
    f"jsonl:{path}", fields=("source", "target"), all_fields=True
  )


def lines_of(ids, **more):
  return [scored_file.Line(str(i), f"p{i}", None, None) for i in ids]


def match(lines, records, examples=0):
  samples = scored_file.match(
    lines,
    PATH,
    records,
    source_field="source",
    target_field="target",
    examples=examples,
  )
  return [dataclasses.astuple(sample) for sample in samples]


def test_lines_are_read_as_prediction_writes_them(tmp_path):
  path = write(
    tmp_path / "p.jsonl",
    [
      {"id": 7, "source": "s", "prediction": "p", "score": -1.0, "x": [1]},
      {"prediction": ["first", "second"], "target": "t", "id": ""},
      {"id": "c", "prediction": ""},
    ],
  )
  assert scored_file.read(path) == [
    scored_file.Line("7", "p", "s", None),
    scored_file.Line("1", "first", None, "t"),
    scored_file.Line("c", "", None, None),
  ]


def test_the_target_may_have_the_record_s_name(tmp_path):
  rows = [
    {"prediction": "p", "summary": "t", "target": "x"},
    {"prediction": "p", "target": "t"},
  ]
  path = write(tmp_path / "p.jsonl", rows)
  assert [one.target for one in scored_file.read(path, "summary")] == ["t"] * 2
  assert scored_file.read(path)[0].target == "x"


@pytest.mark.parametrize(
  ("raw", "message"),
  [
    (b"", "is empty"),
    (b'{"prediction": "p"}\nno\n', "line 2 is no prediction"),
    (b'{"text": "p"}\n', "line 1 is no prediction .*lacks 'prediction'"),
    (b'["p"]\n', "line 1 is no prediction"),
    (b'{"prediction": []}\n', "line 1 is no prediction"),
    (b'{"prediction": null}\n', "line 1: its prediction is None"),
    (b'{"prediction": [3]}\n', "line 1: its prediction is 3"),
    (b'{"prediction": "p", "target": 3}\n', "line 1: its target is 3"),
    (b"\xff\n", "line 1 is no prediction"),
  ],
)
def test_what_is_no_prediction_is_refused(tmp_path, raw, message):
  path = tmp_path / "p.jsonl"
  path.write_bytes(raw)
  with pytest.raises(Refusal, match=message):
    scored_file.read(path)
  with pytest.raises(Refusal, match=r"none\.jsonl cannot be read"):
    scored_file.read(tmp_path / "none.jsonl")


def test_lines_in_any_order_find_their_records(records):
  want = [("a", "s 0", "t0", "pa"), ("2", "s 2", "t2", "p2")]
  want.append(("d", "s 3", "t3", "pd"))
  # A record with a blank source is no example, whether it has a line or not.
  assert match(lines_of("d2a"), records) == want
  assert match(lines_of("d2ba"), records) == want


def test_numbers_are_ids_too(records):
  want = [("0", "s 0", "t0", "p0"), ("2", "s 2", "t2", "p2")]
  want.append(("3", "s 3", "t3", "p3"))
  assert match(lines_of("320"), records) == want


def test_records_whose_ids_are_not_their_own_have_numbers(tmp_path):
  rows = [{"source": "s", "target": f"t{i}", "id": "x"} for i in range(2)]
  twice = open_set(write(tmp_path / "set.jsonl", rows))
  assert [row[3] for row in match(lines_of("10"), twice)] == ["p0", "p1"]
  with pytest.raises(Refusal, match="2 ids are missing"):
    match(lines_of("x"), twice)


def test_numbers_that_are_own_ids_are_own_ids(tmp_path):
  rows = [{"source": "s", "target": f"t{i}", "id": 1 - i} for i in range(2)]
  crossed = open_set(write(tmp_path / "set.jsonl", rows))
  assert [row[2:] for row in match(lines_of("01"), crossed)] == [
    ("t0", "p1"),
    ("t1", "p0"),
  ]


@pytest.mark.parametrize(
  ("ids", "message"),
  [
    ("ad", r"1 ids are missing \('2'\); give each"),
    ("a2dad", r"2 ids stand there more than once \('a', 'd'\);"),
    ("a2dxy", r"2 ids are not in the set \('x', 'y'\);"),
    ("x", r"3 ids are missing .*, 1 ids are not in the set \('x'\);"),
  ],
)
def test_ids_that_do_not_fit_are_refused_in_one_line(records, ids, message):
  with pytest.raises(Refusal, match=message) as caught:
    match(lines_of(ids), records)
  assert str(caught.value).startswith("--predictions=file.jsonl does not fit")
  assert "\n" not in str(caught.value)


def test_as_many_as_evaluation_generates_are_scored(records):
  assert [row[0] for row in match(lines_of("a2d"), records, 2)] == ["a", "2"]
  assert [row[0] for row in match(lines_of("a2"), records, 2)] == ["a", "2"]
  with pytest.raises(Refusal, match=r"1 ids are missing \('2'\)"):
    match(lines_of("ad"), records, 2)
  assert len(match(lines_of("a2d"), records, -1)) == 3


def test_a_set_without_a_source_is_refused_in_one_line(tmp_path):
  rows = [{"source": " ", "target": f"t{i}"} for i in range(2)]
  blank = open_set(write(tmp_path / "blank.jsonl", rows))
  for lines in (lines_of("01"), []):
    with pytest.raises(Refusal, match=r"no record with a 'source' that is not"):
      match(lines, blank)


def test_another_set_s_sources_are_refused(records):
  lines = lines_of("a2d")
  lines[0] = dataclasses.replace(lines[0], source=" s\n0")
  assert len(match(lines, records)) == 3
  lines[1] = dataclasses.replace(lines[1], source="s 3")
  with pytest.raises(Refusal, match=r"of 3 lines 1 have another source .*'2'"):
    match(lines, records)


def test_a_file_alone_has_its_own_targets():
  lines = [scored_file.Line("0", "p", None, "t")]
  (sample,) = scored_file.alone(lines, PATH, sources=False)
  assert dataclasses.astuple(sample) == ("0", "", "t", "p")
  with pytest.raises(Refusal, match=r"line 1 has no source, .*set data\.test"):
    scored_file.alone(lines, PATH, sources=True)
  lines.append(scored_file.Line("1", "p", "s", None))
  with pytest.raises(Refusal, match="line 2 has no target"):
    scored_file.alone(lines, PATH, sources=False)
