"""Counts of a source's records, whole or in parts."""

import numpy as np

from data.store.counts import Counts


def test_truncations_are_counted_by_side(make_pairs, wordpiece):
  whole = make_pairs(20)
  assert whole.counts.truncated_sources == whole.counts.truncated_targets == 0
  cut = make_pairs(20, max_source_length=7, max_target_length=4)
  every = np.arange(20)
  over = (whole.source_lengths(every) > 7).sum()
  assert cut.counts.truncated_sources == over > 0
  over = (whole.target_lengths(every) > 4).sum()
  assert cut.counts.truncated_targets == over > 0
  assert cut.source_lengths(every).max() == 7
  for index in range(20):
    # What the encoder's tokenizer puts at the end stays there.
    assert cut[index].source[-1] == wordpiece.suffix[0]
    ended = cut[index].target[-1] == 0
    assert ended == (whole.target_lengths(every[index : index + 1])[0] <= 4)


def test_parts_add_up_to_the_whole():
  # Tokens of source and target, and which of them is truncated.
  table = np.array([[3, 1, 0, 0], [4, 1, 1, 1], [2, 5, 1, 0], [2, 2, 0, 1]])
  whole = Counts.of(table, records=9)
  # A target that was cut to one token is not empty.
  assert whole == Counts(
    pairs=4,
    skipped_records=0,
    empty_sources=5,
    empty_targets=1,
    truncated_sources=2,
    truncated_targets=2,
  )
  assert Counts.of(table, records=9, empty_target=2).empty_targets == 0
  parts = [Counts.of(table[:1], records=5), Counts.of(table[1:], records=4)]
  assert Counts.total(parts, skipped_records=0) == whole
  assert Counts.total(parts, skipped_records=2).skipped_records == 2
