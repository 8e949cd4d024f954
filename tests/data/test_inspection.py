"""Figures about lengths are those that counting one by one gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import inspection
from data.inspection import Lengths
from data.sources import Source, open_source

NUMBERS = st.lists(
  st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=60
)


def _lengths(pairs) -> Lengths:
  array = np.array(pairs, np.int64)
  return Lengths(array[:, 0], array[:, 1])


def _log_normal(size: int) -> Lengths:
  draw = np.random.default_rng(7)
  source = draw.lognormal(4.5, 0.8, size).clip(3)
  target = draw.lognormal(2.8, 0.6, size).clip(2)
  return Lengths(source.astype(np.int64), target.astype(np.int64))


@pytest.mark.parametrize("size", [1, 2, 7, 36, 37, 38, 1000])
def test_a_sample_is_spread_evenly(write_jsonl, size):
  path = write_jsonl(*({"source": str(i), "target": ""} for i in range(37)))
  source = open_source(f"jsonl:{path}", fields=("source",))
  sample = inspection.Sample(source, size)
  assert isinstance(sample, Source)
  numbers = [int(sample[i]["source"]) for i in range(len(sample))]
  assert len(numbers) == min(size, 37) == len(set(numbers))
  assert numbers[0] == 0 and numbers == sorted(numbers)
  gaps = np.diff([*numbers, 37])
  assert gaps.max() - gaps.min() <= 1
  assert sample.locate(len(numbers) - 1) == source.locate(numbers[-1])
  with pytest.raises(IndexError):
    sample[len(numbers)]


@given(pairs=NUMBERS, longest=st.integers(2, 40))
def test_a_side_in_figures(pairs, longest):
  lengths = [source for source, _ in pairs]
  side = inspection.side("source", np.array(lengths, np.int64), longest)
  cuts = lambda most: np.mean([n > most for n in lengths])
  assert side.truncated == cuts(longest)
  assert cuts(side.enough) <= inspection.CUT
  assert side.enough == 2 or cuts(side.enough - 1) > inspection.CUT
  assert side.percentiles[0][1] == min(lengths)
  assert side.percentiles[-1][1] == max(lengths)
  for percent, tokens in side.percentiles:
    assert 100 * np.mean([n <= tokens for n in lengths]) >= percent
    assert 100 * np.mean([n < tokens for n in lengths]) <= percent
  for low, high, share in side.bins:
    assert share == np.mean([low <= n <= high for n in lengths])
  assert sum(share for *_, share in side.bins) == pytest.approx(1)


def _check(fill, pairs, shapes):
  """A fill of rows with these shapes, counted position by position."""
  sums = [sum(side) for side in zip(*pairs, strict=True)]
  sizes = [sum(side) for side in zip(*shapes, strict=True)]
  assert fill.source == pytest.approx(sums[0] / sizes[0])
  assert fill.target == pytest.approx(sums[1] / sizes[1])
  assert fill.both == pytest.approx(sum(sums) / sum(sizes))
  assert fill.pairs_per_row == pytest.approx(len(pairs) / len(shapes))


@given(pairs=NUMBERS, batch_size=st.integers(1, 9), seed=st.integers(0, 99))
def test_fills_of_one_pair_a_row(pairs, batch_size, seed):
  lengths = _lengths(pairs)
  shapes = [(10, 4), (20, 12), (40, 12)]
  holds = lambda s, t: next(x for x in shapes if s <= x[0] and t <= x[1])
  _check(
    inspection.fill_padded(lengths, (40, 12)), pairs, [(40, 12)] * len(pairs)
  )
  _check(
    inspection.fill_buckets(lengths, shapes), pairs, [holds(*p) for p in pairs]
  )
  shuffled = lengths.shuffled(seed)
  order = list(zip(shuffled.source, shuffled.target, strict=True))
  assert sorted(order) == sorted(pairs)
  rows = []
  for first in range(0, len(order), batch_size):
    batch = order[first : first + batch_size]
    rows += [holds(*map(max, zip(*batch, strict=True)))] * len(batch)
  fill = inspection.fill_batches(lengths, shapes, batch_size, seed)
  _check(fill, pairs, rows)
  with pytest.raises(ValueError, match="no shape of"):
    inspection.fill_buckets(_lengths([(41, 1)]), shapes)


def test_the_suggested_rows_fill_well():
  lengths = _log_normal(3000)
  enough = tuple(
    inspection.side("", side, 2).enough
    for side in (lengths.source, lengths.target)
  )
  rows = inspection.suggest_rows(lengths, enough, seed=0)
  assert rows.longest == enough
  for side, most in zip(rows.shape, enough, strict=True):
    assert side >= most and side % 8 == 0
  assert rows.fill.source > 0.9 and rows.fill.target > 0.6
  # The largest that are tried fill a percent more.
  assert rows.shape[0] < 1.6 * enough[0]
  cut = lengths.cut(enough)
  assert rows.fill == inspection.fill_packed(cut, rows.shape, 0)
  # Not so the rows that a pair alone would have.
  assert inspection.fill_packed(cut, enough, 0).both < rows.fill.both - 0.1
  assert rows == inspection.suggest_rows(lengths, enough, seed=0)


def test_larger_rows_are_suggested_where_they_fill_better():
  # Two of three hundred and twenty do not fit beside one of five hundred.
  lengths = _lengths([(320, 8)] * 300 + [(504, 8)])
  rows = inspection.suggest_rows(lengths, (504, 8), seed=0)
  assert rows.shape[0] == 1008 and rows.fill.source > 0.9
  rows = inspection.suggest_rows(_lengths([(250, 8)] * 300), (504, 8), seed=0)
  assert rows.shape[0] == 504 and rows.fill.source > 0.9


def test_texts():
  side = inspection.side("source", np.arange(1, 101, dtype=np.int64), 64)
  text = inspection.side_text(side)
  assert "data.max_source_length = 64 truncates 36.0%" in text
  assert "truncates at most 5% is 95" in text
  assert len([line for line in text.splitlines() if "#" in line]) == 12
  fill = inspection.Fill(0.5, 0.25, 0.375, 2.0)
  lines = inspection.fills_text([("all", fill), ("a longer name", fill)])
  first, *others = lines.splitlines()
  for line in others:
    assert line.split()[-4:] == ["50.0%", "25.0%", "37.5%", "2.00"]
    # The numbers end under their names.
    assert line.index("50.0%") + 5 == first.index("source") + 6
  text = inspection.rows_text(inspection.Rows((9, 8), (32, 16), fill))
  for key, value in {
    "max_source": 9,
    "max_target": 8,
    "pack_source": 32,
    "pack_target": 16,
  }.items():
    assert f"--config.data.{key}_length={value}" in text
