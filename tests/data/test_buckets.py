"""Buckets: the smallest that holds a batch; each pair in one of them."""

import itertools

import numpy as np
import pytest

from data.buckets import bucket_batches, choose_bucket, make_buckets

from .conftest import BUCKETS, epoch_of, make_batches


@pytest.fixture
def pairs(make_pairs):
  return make_pairs(50)


def test_make_buckets():
  assert make_buckets((), (), 32, 12) == ((32, 12),)
  made = make_buckets((128, 64, 128), (48, 24, 24), 128, 48)
  assert made == ((64, 24), (128, 24), (128, 48))
  with pytest.raises(ValueError, match="zipped"):
    make_buckets((64,), (), 64, 24)
  with pytest.raises(ValueError, match=r"max_source_length = 65 .*add one"):
    make_buckets((64, 65), (24, 12), 65, 24)


def test_smallest_bucket_that_holds_the_longest_row(make_pairs):
  pairs = make_pairs(50)
  batches = make_batches(pairs, batch_size=2)
  shapes = set()
  for step in range(60):
    members = np.array(batches.members(step))
    source = pairs.source_lengths(members).max()
    target = pairs.target_lengths(members).max()
    fits = [b for b in BUCKETS if source <= b[0] and target <= b[1]]
    batch = batches.batch(step)
    assert batch["encoder_tokens"].shape == (2, fits[0][0])
    assert batch["decoder_targets"].shape == (2, fits[0][1])
    # Not even one row alone changes the shape that the whole batch has.
    one = batches.batch(step, np.array([1]))
    assert one["encoder_tokens"].shape == (1, fits[0][0])
    shapes.add(fits[0])
  assert len(shapes) >= 2, shapes


def test_buckets_change_shapes_and_no_members(pairs):
  plain = make_batches(pairs, buckets=((32, 12),))
  bucketed = make_batches(pairs)
  assert [plain.members(n) for n in range(9)] == [
    bucketed.members(n) for n in range(9)
  ]


def test_a_bucket_batch_is_of_one_bucket(pairs_of_lengths):
  pairs = pairs_of_lengths([(i % 31 + 1, i % 7 // 2 + 1) for i in range(90)])
  batches = make_batches(pairs, packing="bucket", buckets=BUCKETS)
  members, arrays = epoch_of(batches)
  shapes = [batch["encoder_tokens"].shape[1] for batch in arrays]
  assert len(set(shapes)) == 3
  # One batch alone has fewer pairs than rows, and it is of the largest.
  short = [i for i, batch in enumerate(members) if len(batch) < 8]
  assert [shapes[i] for i in short] == [32] * (90 % 8 > 0)
  again, _ = epoch_of(batches, len(members))
  assert sorted(itertools.chain(*again)) == list(range(90))
  # Other pairs stand together in the next epoch.
  assert not {frozenset(b) for b in members} & {frozenset(b) for b in again}
  for batch, shape in zip(members, shapes, strict=True):
    source = pairs.source_lengths(np.array(batch))
    if shape > 8 and len(batch) == 8:
      # No more of them than were left over would have fitted a smaller one.
      assert (source <= 8).sum() < 8


@pytest.mark.parametrize("packing", ["none", "bucket"])
def test_pipeline_refuses_buckets_that_are_too_small(pairs, packing):
  with pytest.raises(ValueError, match=r"no bucket of .* holds"):
    make_batches(pairs, packing=packing, buckets=((8, 3),))


def test_what_fills_no_batch_stands_in_the_next_larger_bucket():
  lengths = np.array([3, 9, 4, 9, 5, 9, 9, 2, 9])
  batches = bucket_batches(
    lengths, lengths, buckets=((5, 5), (9, 9)), batch_size=3, seed=0
  )
  assert len(batches) == 3
  members = [
    batches.members(np.array([unit]), np.array([0])).pairs.tolist()
    for unit in range(3)
  ]
  # The last of the four short pairs has no two others beside it.
  assert sorted(members[0]) == [0, 2, 4]
  assert sorted(members[1] + members[2]) == [1, 3, 5, 6, 7, 8]


def test_a_pair_that_no_bucket_holds_is_told_with_its_lengths(pairs_of_lengths):
  pairs, every = pairs_of_lengths([(3, 2), (7, 2)]), np.arange(2)
  assert choose_bucket(pairs, every[:1], ((5, 5), (9, 9))) == (5, 5)
  assert choose_bucket(pairs, every, ((5, 5), (9, 9))) == (9, 9)
  for refused in (
    lambda: choose_bucket(pairs, every, ((5, 5),)),
    lambda: bucket_batches(
      pairs.source_lengths(every),
      pairs.target_lengths(every),
      buckets=((5, 5),),
      batch_size=1,
      seed=0,
    ),
  ):
    with pytest.raises(ValueError, match="holds 7 source and 2 target tokens"):
      refused()
