"""A record is read back as it was written, or not at all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.examples import Example
from data.store import shards

IDS = st.lists(st.integers(0, (1 << 16) - 1), max_size=9)


@given(
  source=IDS.filter(len), target=IDS.filter(len), width=st.just(2) | st.just(4)
)
def test_an_example_survives_packing(source, target, width):
  example = Example(np.array(source, np.int32), np.array(target, np.int32))
  record = shards.pack(example, width)
  assert len(record) == 4 + width * (len(source) + len(target))
  again = shards.unpack(record, [len(source), len(target)], width)
  assert again.source.tolist() == source and again.target.tolist() == target
  assert again.source.dtype == again.target.dtype == np.int32
  for lengths in (
    [len(source), len(target) + 1],
    [len(source) + 1, len(target) - 1],
  ):
    with pytest.raises(ValueError, match="not that of the table"):
      shards.unpack(record, lengths, width)


def test_the_width_holds_every_id():
  assert shards.id_bytes(1 << 16) == 2
  assert shards.id_bytes((1 << 16) + 1) == 4
  largest = Example(np.array([0], np.int32), np.array([1 << 16], np.int32))
  with pytest.raises(OverflowError, match="65536 in 2 bytes"):
    shards.pack(largest, 2)
  record = shards.pack(largest, 4)
  assert shards.unpack(record, [1, 1], 4).target.tolist() == [1 << 16]


def test_records_are_numbered_through_the_files(tmp_path):
  sizes = [3, 1, 0, 4]
  paths = [tmp_path / f"{i}" for i in range(4)]
  records = [b"%d" % i for i in range(8)]
  for i, path in enumerate(paths):
    first = sum(sizes[:i])
    shards.write(path, records[first : first + sizes[i]], f"label {i}")
    shards.check(path, sizes[i], f"label {i}")
  read = shards.Shards(paths, sizes)
  assert [read[i] for i in range(8)] == records
  assert read.find(3) == (1, 0) and read.find(4) == (3, 0)
  with pytest.raises(ValueError, match="3 pairs instead of 2"):
    shards.check(paths[0], 2, "label 0")
  with pytest.raises(ValueError, match="another's"):
    shards.check(paths[0], 3, "label 1")


def test_a_file_that_cannot_be_written_says_so(tmp_path):
  with pytest.raises(OSError, match="No such file"):
    shards.write(tmp_path / "none" / "file", [b"a"], "label")
