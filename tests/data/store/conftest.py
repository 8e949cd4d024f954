"""A source of unequal pairs, and shards that are small."""

import pathlib

import pytest

from data import sources
from data.store import prepare

SMALL = 4


def bits(folder: pathlib.Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
  """Sets of few records have several shards."""
  monkeypatch.setattr(prepare, "_RECORDS", SMALL)


@pytest.fixture
def source(write_jsonl) -> sources.Source:
  return open_pairs(write_jsonl, 22)


def open_pairs(write_jsonl, size, name="pairs.jsonl", **options):
  lines = [
    {"source": "apple " + "very " * (i % 9), "target": "go " * (i % 7)}
    for i in range(size)
  ]
  path = write_jsonl(*lines, name=name)
  return sources.open_source(
    f"jsonl:{path}", fields=("source", "target"), **options
  )
