"""Batch n depends on (seed, n) alone, however and wherever it is built."""

import itertools

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from data import pipeline

BUCKETS = ((8, 3), (16, 5), (32, 12))


@pytest.fixture
def pairs(make_pairs):
  return make_pairs(50)


@pytest.fixture
def batches(pairs) -> pipeline.Pipeline:
  return pipeline.Pipeline(pairs, 8, 0, BUCKETS)


@pytest.fixture
def sharding() -> NamedSharding:
  mesh = jax.make_mesh(
    (4, 2), ("data", "tensor"), (jax.sharding.AxisType.Auto,) * 2
  )
  return NamedSharding(mesh, PartitionSpec("data"))


def _assert_equal(one, other):
  assert one.keys() == other.keys()
  for name in one:
    np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert one[name].dtype == other[name].dtype, name


def test_seeking_is_iterating(batches, sharding):
  whole = list(pipeline.train_batches(batches, 0, 14, sharding=sharding))
  sought = list(pipeline.train_batches(batches, 9, 14, sharding=sharding))
  assert (len(whole), len(sought)) == (14, 5)
  for one, other in zip(whole[9:], sought, strict=True):
    _assert_equal(one, other)
  for step, batch in enumerate(whole):
    _assert_equal(batch, batches.batch(step))
  assert not np.array_equal(
    whole[0]["decoder_targets"], whole[1]["decoder_targets"]
  )
  assert not list(pipeline.train_batches(batches, 5, 5, sharding=sharding))


def test_an_iterator_can_be_left(batches, sharding):
  steps = pipeline.train_batches(batches, 0, 10**12, sharding=sharding)
  _assert_equal(next(steps), batches.batch(0))
  steps.close()


def test_worker_processes_change_nothing(batches, sharding):
  threads = list(pipeline.train_batches(batches, 2, 7, sharding=sharding))
  processes = list(
    pipeline.train_batches(batches, 2, 7, sharding=sharding, workers=2)
  )
  assert len(processes) == 5
  for one, other in zip(threads, processes, strict=True):
    _assert_equal(one, other)


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_hosts_build_parts_of_the_same_batch(batches, hosts):
  for step in (0, 6, 1000):
    # Hosts need not hold neighbouring rows.
    rows = [np.arange(host, 8, hosts) for host in range(hosts)]
    parts = [batches.batch(step, mine) for mine in rows]
    whole = batches.batch(step)
    for name, array in whole.items():
      built = np.empty_like(array)
      for mine, part in zip(rows, parts, strict=True):
        built[mine] = part[name]
      np.testing.assert_array_equal(built, array, err_msg=name)


def test_no_pair_is_lost_or_doubled_in_an_epoch(batches):
  rows = list(itertools.chain(*(batches.ids(n) for n in range(19))))
  for epoch in range(3):
    assert sorted(rows[epoch * 50 : (epoch + 1) * 50]) == list(range(50))
  assert rows[:50] != rows[50:100]


def test_ids_name_the_rows(batches, bpe):
  for step in (0, 5):
    batch = batches.batch(step)
    for row, record in enumerate(batches.ids(step)):
      length = int(batch["decoder_weights"][row].sum())
      text = bpe.decode(batch["decoder_targets"][row, :length].tolist())
      assert text == batches.pairs.source[record]["target"]


def test_seed_decides_the_members(pairs):
  first = pipeline.Pipeline(pairs, 8, 0, BUCKETS)
  other = pipeline.Pipeline(pairs, 8, 1, BUCKETS)
  assert first.ids(0) != other.ids(0)
  assert first.ids(0) == pipeline.Pipeline(pairs, 8, 0, BUCKETS).ids(0)
  assert first.fingerprint != other.fingerprint


def test_smallest_bucket_that_holds_the_longest_row(make_pairs):
  pairs = make_pairs(50)
  batches = pipeline.Pipeline(pairs, 2, 0, BUCKETS)
  shapes = set()
  for step in range(60):
    members = np.array(batches.ids(step))
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
  plain = pipeline.Pipeline(pairs, 8, 0, ((32, 12),))
  bucketed = pipeline.Pipeline(pairs, 8, 0, BUCKETS)
  assert [plain.ids(n) for n in range(9)] == [bucketed.ids(n) for n in range(9)]


def test_make_buckets():
  assert pipeline.make_buckets((), (), 32, 12) == ((32, 12),)
  made = pipeline.make_buckets((128, 64, 128), (48, 24, 24), 128, 48)
  assert made == ((64, 24), (128, 24), (128, 48))
  with pytest.raises(ValueError, match="zipped"):
    pipeline.make_buckets((64,), (), 64, 24)
  with pytest.raises(ValueError, match=r"max_source_length = 65 .*add one"):
    pipeline.make_buckets((64, 65), (24, 12), 65, 24)


def test_pipeline_refuses_buckets_that_are_too_small(pairs):
  with pytest.raises(ValueError, match=r"no bucket of .* holds"):
    pipeline.Pipeline(pairs, 8, 0, ((8, 3),))


@pytest.mark.parametrize("sharded", [False, True])
def test_eval_sees_every_pair_once(pairs, sharding, sharded):
  where = sharding if sharded else None
  seen, weight, rows = [], 0.0, 0
  made = list(pipeline.eval_batches(pairs, 8, BUCKETS, sharding=where))
  for batch in made:
    seen += batch.pairs
    weight += float(batch.arrays["decoder_weights"].sum())
    rows += int((batch.arrays["decoder_segments"].max(axis=1) > 0).sum())
    assert batch.arrays["encoder_tokens"].shape[0] == 8
  assert seen == list(range(50)) and rows == 50
  assert weight == pairs.target_lengths(np.arange(50)).sum()
  assert len(made[-1].pairs) == 2
  assert not np.any(made[-1].arrays["encoder_segments"][2:])


def test_eval_is_the_same_sharded(pairs, sharding):
  whole = list(pipeline.eval_batches(pairs, 8, BUCKETS))
  sharded = pipeline.eval_batches(pairs, 8, BUCKETS, sharding=sharding)
  for one, other in zip(whole, sharded, strict=True):
    assert one.pairs == other.pairs
    _assert_equal(one.arrays, other.arrays)
