"""Held-out pairs that training has seen are counted, whatever their number."""

from hypothesis import given
from hypothesis import strategies as st

from data import duplicates
from data.sources import Source, open_source

FIELDS = {"source_field": "a", "target_field": "b"}


class Records:
  """Pairs of texts as a source."""

  def __init__(self, name: str, pairs: list[tuple[str, str]]):
    self.name = name
    self.fingerprint = ""
    self.skipped = 0
    self._pairs = pairs

  def __len__(self) -> int:
    return len(self._pairs)

  def __getitem__(self, index: int) -> dict[str, str]:
    return dict(zip("ab", self._pairs[index], strict=True))

  def locate(self, index: int) -> str:
    return f"{self.name} {index}"


PAIRS = st.lists(
  st.tuples(
    st.text("xy\0", min_size=1, max_size=2), st.text("xy\0", max_size=2)
  ),
  min_size=1,
  max_size=30,
)


@given(train=st.lists(PAIRS, min_size=1, max_size=3), one=PAIRS, two=PAIRS)
def test_counts_are_those_of_sets(train, one, two):
  assert isinstance(Records("", one), Source)
  whole = [pair for part in train for pair in part]
  parts = [Records(f"part{i}", part) for i, part in enumerate(train)]
  held_out = {"one": Records("one", one), "two": Records("two", two)}
  found = duplicates.find(parts, held_out, **FIELDS)
  for name, pairs in (("one", one), ("two", two)):
    overlap = found[name]
    assert overlap.total == len(pairs)
    assert overlap.pairs == sum(pair in whole for pair in pairs)
    texts = {source for source, _ in whole}
    assert overlap.sources == sum(source in texts for source, _ in pairs)
    assert (overlap.example is None) == (overlap.sources == 0)
    if overlap.example:
      (_, index), (part, number) = map(str.split, overlap.example)
      here, there = pairs[int(index)], train[int(part[4:])][int(number)]
      assert here == there if overlap.pairs else here[0] == there[0]


def test_more_records_than_a_chunk_and_the_first_place(monkeypatch):
  monkeypatch.setattr(duplicates, "_CHUNK", 7)
  train = Records("t", [(str(i % 90), str(i % 90)) for i in range(100)])
  other = Records("v", [(str(i), str(i)) for i in range(85, 185)])
  overlap = duplicates.find([train], {"v": other}, **FIELDS)["v"]
  assert (overlap.pairs, overlap.sources) == (5, 5)
  assert overlap.example == ("v 0", "t 85")


def test_the_line_that_is_reported():
  train = Records("t", [("a", "1"), ("b", "2"), ("c", "3")])
  other = Records("v", [("a", "0"), ("b", "2"), ("x", "1"), ("y", "2")])
  assert str(duplicates.find([train], {"v": other}, **FIELDS)["v"]) == (
    "1 of 4 pairs (25.0%) stand in the training data too, and 1 more with "
    "another target; for example v 1 is t 1"
  )


def test_blank_sources_are_no_duplicates():
  train = Records("t", [("", "1"), (" ", "2"), ("\n", "3")])
  other = Records("v", [("", "1"), (" ", "2"), ("\n", "3")])
  overlap = duplicates.find([train], {"v": other}, **FIELDS)["v"]
  assert overlap.sources == overlap.pairs == 0


def test_a_built_in_set_keeps_its_splits_apart():
  fields = ("source", "target")
  train, *others = (
    open_source(f"dates@{split}", fields=fields)
    for split in ("train[:5%]", "valid", "test")
  )
  found = duplicates.find(
    [train],
    dict(zip(("valid", "test"), others, strict=True)),
    source_field="source",
    target_field="target",
  )
  for overlap in found.values():
    assert overlap.total == 1000 and overlap.sources == 0
