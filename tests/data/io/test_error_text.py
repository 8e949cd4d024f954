"""What an error says of a file: its name, the fault, few of its words."""

import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python import (
  array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)

from data import packing, sources
from data.io.error_text import few
from data.store import manifest
from data.tokenizers import training
from data.tokenizers.tokenizer import load_tokenizer

LONG = "secret " * 1000
MOST = 700


def _refusal(place, call, *arguments, **keywords):
  """The message, which names the place and is short without its path."""
  with pytest.raises((ValueError, OSError)) as caught:
    call(*arguments, **keywords)
  message = str(caught.value)
  assert str(place) in message, message
  assert len(message.replace(str(place), "")) < MOST, message
  assert message.count("secret") < 60, message
  return message


def _arrayrecord(path, raw):
  writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
  writer.write(raw)
  writer.close()


MANY = {f"{LONG}{n}": "text" for n in range(50)}
RECORDS = {
  "no JSON": LONG.encode(),
  "no UTF-8": LONG.encode() + b"\xff",
  "other fields": json.dumps(MANY).encode(),
  "a string": json.dumps(LONG).encode(),
  "half a pair": b'{"source": "\\ud800", "target": ""}',
  "deep": b"[" * 50_000,
}


@pytest.mark.parametrize("raw", RECORDS.values(), ids=RECORDS)
@pytest.mark.parametrize("scheme", ["jsonl", "arrayrecord"])
def test_no_record_is_printed_without_a_bound(tmp_path, scheme, raw):
  path = tmp_path / f"data.{scheme}"
  if scheme == "jsonl":
    path.write_bytes(raw + b"\n")
  else:
    _arrayrecord(path, raw)
  fields = ("source", "target")
  uri = f"{scheme}:{path}"
  _refusal(path, sources.open_source, uri, fields=fields)


TABLES = {
  "no header": LONG + "\n" + LONG,
  "names": ",".join(MANY) + "\na,b",
  "a quote": 'source,target\n"' + LONG,
  "cells": "source,target\n" + "secret," * 1000,
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_no_table_is_printed_without_a_bound(tmp_path, text):
  path = tmp_path / "data.csv"
  path.write_text(text)
  fields = ("source", "target")
  _refusal(path, sources.open_source, f"csv:{path}", fields=fields)


def test_no_parallel_text_is_printed(tmp_path):
  source, target = tmp_path / "a.txt", tmp_path / "b.txt"
  source.write_bytes(LONG.encode() + b"\xff\n")
  target.write_text("b\n")
  uri = f"text:{source}::{target}"
  _refusal(source, sources.open_source, uri, fields=("source", "target"))


NESTED = pa.struct([(f"{LONG}{n}", pa.int32()) for n in range(9)])
COLUMNS = {
  "names": {name: ["text"] for name in MANY},
  "a type": {"source": pa.array([None], NESTED), "target": ["text"]},
}


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
def test_no_schema_is_printed_without_a_bound(tmp_path, columns):
  path = tmp_path / "data.parquet"
  pq.write_table(pa.table(columns), path)
  fields = ("source", "target")
  _refusal(path, sources.open_source, f"parquet:{path}", fields=fields)


MANIFESTS = {
  "no JSON": LONG.encode(),
  "no UTF-8": LONG.encode() + b"\xff",
  "a list": json.dumps([LONG]).encode(),
  "a number": json.dumps({"digest": "", "uri": "", "facts": {}, "counts": {
    LONG: 1}}).encode(),
  "no key": b"{}",
  "deep": b"[" * 50_000,
}  # fmt: skip


@pytest.mark.parametrize("raw", MANIFESTS.values(), ids=MANIFESTS)
def test_no_manifest_is_printed(tmp_path, raw):
  (tmp_path / manifest.NAME).write_bytes(raw)
  _refusal(tmp_path / manifest.NAME, manifest.read, tmp_path)


def test_no_header_of_a_table_is_printed(tmp_path):
  path = tmp_path / "rows.npy"
  np.save(path, np.zeros(3, np.int64))
  raw = path.read_bytes()
  path.write_bytes(raw.replace(b"'descr'", b"'de\xffcr'"))
  _refusal(path, packing._read, pathlib.Path(path), 1)
  header = repr({LONG: 1}).encode() + b"\n"
  size = len(header).to_bytes(4, "little")
  path.write_bytes(b"\x93NUMPY\x02\x00" + size + header)
  _refusal(path, packing._read, pathlib.Path(path), 1)


def _model(**values):
  def change(tokenizer):
    tokenizer["model"] |= values

  return change


@pytest.mark.parametrize(
  "change",
  [
    lambda tokenizer: tokenizer.update(version=LONG),
    lambda tokenizer: tokenizer.update(post_processor={"type": LONG}),
    lambda tokenizer: tokenizer.pop("model"),
    _model(type=LONG),
    _model(vocab=LONG),
    _model(vocab={LONG: LONG}),
  ],
)
def test_no_tokenizer_is_printed(tmp_path, change):
  made = training.train_wordpiece(["red blue green"] * 9, 300)
  made.save(str(tmp_path))
  path = tmp_path / "tokenizer.json"
  tokenizer = json.loads(path.read_text())
  change(tokenizer)
  path.write_text(json.dumps(tokenizer))
  _refusal(tmp_path, load_tokenizer, str(tmp_path))


@pytest.mark.parametrize("raw", [LONG.encode(), b"\xff" * 4000, b"[]", b"{"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_no_damaged_tokenizer_is_printed(tmp_path, name, raw):
  training.train_wordpiece(["red blue"] * 9, 300).save(str(tmp_path))
  (tmp_path / name).write_bytes(raw)
  _refusal(tmp_path, load_tokenizer, str(tmp_path))


def test_few_names_are_listed_and_many_are_counted():
  assert few([]) == ""
  assert few("abc") == "a, b, c"
  assert few(map(str, range(9))) == "0, 1, 2, 3, 4, 5, 6, 7, ... (9 in all)"
  assert len(few([LONG] * 9)) < MOST
