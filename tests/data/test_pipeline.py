"""Batch n depends on (seed, n) alone, however and wherever it is built."""

import itertools
import threading

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from data import device, pipeline

from .conftest import BUCKETS, epoch_of, make_batches


@pytest.fixture
def pairs(make_pairs):
  return make_pairs(50)


@pytest.fixture(params=[*pipeline.PACKINGS, "mixture"])
def batches(request, pairs, make_pairs) -> pipeline.Pipeline:
  if request.param == "mixture":
    return make_batches(
      pairs, make_pairs(20), weights=(0.7, 0.3), packing="pack"
    )
  return make_batches(pairs, packing=request.param)


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


def test_worker_processes_change_nothing(pairs, make_pairs, sharding):
  parts, weights = (pairs, make_pairs(20)), (0.7, 0.3)
  batches = make_batches(*parts, weights=weights, packing="pack")
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


lengths = st.lists(
  st.tuples(st.integers(1, 32), st.integers(1, 12)), min_size=1, max_size=50
)


@hypothesis.given(lengths, st.sampled_from(pipeline.PACKINGS))
def test_every_token_is_seen_once_an_epoch(pairs_of_lengths, made, packing):
  """As multisets: whole pairs, and the ids that stand in the arrays."""
  pairs = pairs_of_lengths(made)
  batches = make_batches(pairs, packing=packing, batch_size=4)
  if packing != "bucket":
    # Batches that are epochs: in any other, epochs meet.
    rows = len(batches.plan.units[0])
    batches = make_batches(pairs, packing=packing, batch_size=rows)
  for epoch in range(2):
    steps = -(-len(batches.plan.units[0]) // batches.plan.units_per_batch)
    members, arrays = epoch_of(batches, epoch * steps)
    assert sorted(itertools.chain(*members)) == list(range(len(made)))
    for side, ids in (
      ("encoder", "encoder_tokens"),
      ("decoder", "decoder_targets"),
    ):
      seen = np.concatenate(
        [batch[ids][batch[f"{side}_segments"] > 0] for batch in arrays]
      )
      every = [
        example.source if side == "encoder" else example.target
        for example in (pairs[i] for i in range(len(made)))
      ]
      assert sorted(seen.tolist()) == sorted(np.concatenate(every).tolist())


def test_members_name_the_segments(batches, bpe):
  for step in (0, 5):
    batch = batches.batch(step)
    targets, segments = batch["decoder_targets"], batch["decoder_segments"]
    texts = []
    for row in range(len(targets)):
      assert segments[row].max() == batch["encoder_segments"][row].max()
      for number in range(1, segments[row].max() + 1):
        ids = targets[row][segments[row] == number].tolist()
        texts.append(bpe.decode(ids[:-1]))
    members = batches.members(step)
    assert len(texts) == len(members)
    for text, pair in zip(texts, members, strict=True):
      # Both parts of the mixture begin with the same pairs.
      assert text == batches.pairs.parts[0].record(pair % 50)["target"]


def test_packed_rows_are_the_same_in_every_epoch(pairs):
  batches = make_batches(pairs, packing="pack", batch_size=1)
  one, _ = epoch_of(batches)
  two, _ = epoch_of(batches, len(one))
  assert one != two and sorted(one) == sorted(two)
  assert max(map(len, one)) > 1
  assert len(batches.shapes) == 1


def test_rows_that_are_kept_give_the_same_batches(pairs, make_pairs, tmp_path):
  parts, weights = (pairs, make_pairs(20)), (0.7, 0.3)
  made = make_batches(*parts, weights=weights, packing="pack")
  kept = make_batches(*parts, weights=weights, packing="pack", folder=tmp_path)
  # A file a source.
  assert len(list(tmp_path.glob("rows-*.npy"))) == 2
  assert kept.fingerprint == made.fingerprint
  for step in (0, 3):
    _assert_equal(kept.batch(step), made.batch(step))


def test_seed_decides_the_members(pairs):
  for packing in pipeline.PACKINGS:
    first, other, same = (
      make_batches(pairs, packing=packing, seed=s) for s in (0, 1, 0)
    )
    assert first.members(0) != other.members(0)
    assert first.members(0) == same.members(0)
    assert first.fingerprint != other.fingerprint


def test_a_fingerprint_is_of_all_that_decides_the_batches(make_pairs):
  pairs = make_pairs(50)
  made = [make_batches(make_pairs(49))]
  made += [
    make_batches(pairs, packing=packing, **changes)
    for packing in pipeline.PACKINGS
    for changes in (
      {},
      {"batch_size": 4},
      {"seed": 1},
      {"pack_shape": (41, 16)}
      if packing == "pack"
      else {"buckets": BUCKETS[1:]},
    )
  ]
  assert len({each.fingerprint for each in made}) == 13


def test_a_row_reads_its_own_pairs_and_no_other(pairs, monkeypatch):
  batches = make_batches(pairs, packing="pack")
  read = []
  get = type(pairs).__getitem__

  def counting(self, index):
    read.append(index)
    return get(self, index)

  monkeypatch.setattr(type(pairs), "__getitem__", counting)
  for step in (0, 10**6, 10**12):
    read.clear()
    batches.batch(step)
    assert read == batches.members(step)
    read.clear()
    batches.batch(step, np.array([2, 5]))
    assert len(read) < len(batches.members(step)) / 2


def test_the_next_batch_goes_to_the_device_while_one_is_used(
  pairs, sharding, monkeypatch
):
  second = threading.Event()
  placed = []
  put = device.to_device

  def recording(*args):
    placed.append(put(*args))
    if len(placed) == 2:
      second.set()
    return placed[-1]

  monkeypatch.setattr(device, "to_device", recording)
  batches = pipeline.train_batches(make_batches(pairs), 0, 9, sharding=sharding)
  next(batches)
  # Nobody has asked for it yet.
  assert second.wait(60)
  batches.close()


def test_pipeline_refuses_a_row_that_is_too_short(pairs):
  with pytest.raises(ValueError, match=r"raise data\.pack_source"):
    make_batches(pairs, packing="pack", pack_shape=(8, 16))


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
