"""A run goes on with its own batches, or begins its epoch again."""

import json
import logging

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from data.pipeline import train_batches
from train import loop, start
from train.errors import Refusal
from train.setup.datasets import describe_batches
from train.workdir import data_position, recorded_config


@pytest.fixture
def pipeline(pairs_folder, tiny_config):
  """`pipeline(section__key=value)`: that of a changed configuration."""

  def make(**changes):
    config = tiny_config.copy_and_resolve_references()
    for key, value in changes.items():
      config.update_from_flattened_dict({key.replace("__", "."): value})
    return start.build_run(config, pairs_folder / "run").pipeline

  return make


PACKED = {
  "data__packing": "pack",
  "data__pack_source_length": 40,
  "data__pack_target_length": 20,
}


def test_the_same_plan_goes_on(pipeline):
  made = pipeline()
  saved = json.loads(json.dumps(data_position.describe(made, 5)))
  assert saved["batch_size"] == 8 and saved["shapes"] == [[16, 8]]
  assert saved["epochs"] == [5 * 8 / 61]
  again = data_position.resume(made, saved, 5, restart_epoch=False)
  assert again.members(5) == made.members(5)
  assert again == data_position.resume(made, saved, 5, restart_epoch=True)


def test_another_plan_is_refused_with_what_changed(pipeline):
  saved = data_position.describe(pipeline(), 13)
  with pytest.raises(Refusal) as caught:
    data_position.resume(
      pipeline(train__batch_size=16, **PACKED), saved, 13, restart_epoch=False
    )
  message = str(caught.value)
  assert "train.batch_size: 8 -> 16" in message
  assert "data.packing: 'none' -> 'pack'" in message
  assert "[[16, 8]] -> [[40, 20]]" in message
  # 104 pairs are an epoch of 61 and 43 of the next.
  assert "data.restart_epoch=True, which begins epoch 1 again, 70.5%" in message


def test_an_epoch_begins_again_with_another_plan(pipeline):
  old, new = pipeline(), pipeline(train__batch_size=16, **PACKED)
  begun = data_position.resume(
    new, data_position.describe(old, 13), 13, restart_epoch=True
  )
  rows = len(new.plan.units[0])
  steps = -(-rows // 16)
  # Every pair of epoch 1 is seen, as the new plan has it from its beginning.
  shown = [pair for n in range(13, 13 + steps) for pair in begun.members(n)]
  assert set(shown) == set(range(61))
  assert begun.plan.epochs(13) == (1.0,)
  # Where it began is kept: a run that stops again does not begin again.
  saved = json.loads(json.dumps(data_position.describe(begun, 14)))
  for restart in (False, True):
    resumed = data_position.resume(new, saved, 14, restart_epoch=restart)
    assert resumed.members(14) == begun.members(14) != new.members(14)


def test_other_pairs_are_refused_whatever_is_said(pipeline, pairs_folder):
  saved = data_position.describe(pipeline(), 3)
  path = pairs_folder / "pairs.jsonl"
  path.write_text(path.read_text().replace("red blue 8", "red blue 9"))
  with pytest.raises(Refusal, match=r"pairs\.jsonl' holds other pairs"):
    data_position.resume(pipeline(), saved, 3, restart_epoch=True)


def _change(config, **values):
  config = config.copy_and_resolve_references()
  for key, value in values.items():
    config.update_from_flattened_dict({key.replace("__", "."): value})
  return config


def test_shapes_may_change_only_where_the_epoch_begins_again(
  tmp_path, tiny_config
):
  recorded_config.record(tiny_config, tmp_path, {}, 0)
  other = _change(tiny_config, train__batch_size=16, **PACKED)
  with pytest.raises(Refusal, match=r"or data\.restart_epoch=True"):
    recorded_config.check_same(other, tmp_path)
  restarting = _change(other, data__restart_epoch=True)
  changes = recorded_config.check_same(restarting, tmp_path)
  assert changes["train.batch_size"] == [8, 16] and len(changes) == 5
  recorded_config.record(restarting, tmp_path, changes, 4)
  # Said once: the same command, with or without it, goes on.
  assert recorded_config.check_same(restarting, tmp_path) == {}
  assert set(recorded_config.check_same(other, tmp_path)) == {
    "data.restart_epoch"
  }
  for key, value in (("data__max_source_length", 12), ("optim__lr", 0.5)):
    refused = _change(restarting, **{key: value})
    with pytest.raises(Refusal) as caught:
      recorded_config.check_same(refused, tmp_path)
    assert "restart_epoch=True" not in str(caught.value)


@pytest.mark.usefixtures("one_device")
@pytest.mark.sample(1, group="whole runs")
def test_a_run_is_packed_half_way(finished, tmp_path, caplog):
  """The control: without the word it stops, and leaves the folder alone."""
  config, _, _ = finished
  run = tmp_path / "run"
  first = _change(
    config, train__steps=2, eval__text_examples=-1, optim__warmup_steps=0
  )
  loop.run(first, str(run))
  other = _change(first, train__steps=4, train__batch_size=16, **PACKED)
  history = run / "config_history.jsonl"
  with pytest.raises(Refusal, match=r"data\.restart_epoch=True"):
    loop.run(other, str(run))
  assert not history.exists()
  other = _change(other, data__restart_epoch=True)
  with caplog.at_level(logging.INFO):
    loop.run(other, str(run))
  assert "epoch 0 begins again, 26.2% of it is seen twice" in caplog.text
  assert "one step compiles" in caplog.text
  [line] = history.read_text().splitlines()
  assert json.loads(line)["step"] == 2
  rows = [
    json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()
  ]
  pairs = [row["train/pairs"] for row in rows]
  this = start.build_run(other, run)
  begun = this.pipeline.begin(2, (0,))
  counts = [len(begun.members(n)) for n in (2, 3)]
  # Pairs, of which a packed row has several.
  assert pairs == [8, 16, 16 + counts[0], 16 + sum(counts)]
  assert min(counts) > 16
  for row in rows:
    assert 0 <= row["time/data_wait"] <= 1
    assert row["time/tokens_per_second"] > 0
  tokens = [
    row["train/source_tokens"] + row["train/target_tokens"] for row in rows
  ]
  pairs = this.pipeline.pairs
  members = np.array(begun.members(3))
  useful = pairs.source_lengths(members) + pairs.target_lengths(members)
  assert tokens[3] - tokens[2] == useful.sum()


@pytest.mark.parametrize("packing", ["none", "bucket", "pack"])
def test_a_run_moves_from_four_hosts_to_two(pipeline, packing):
  """Hosts as parts of one mesh's devices: each builds its own rows."""
  changes = {"train__batch_size": 8, "data__packing": packing}
  if packing == "bucket":
    changes |= {"data__source_buckets": (8, 16), "data__target_buckets": (8, 8)}
  if packing == "pack":
    changes |= PACKED
  made = pipeline(**changes)

  def batch(step, hosts):
    """The global batch as `hosts` build it, in parts."""
    saved = json.loads(json.dumps(data_position.describe(made, step)))
    rows = [np.arange(host, 8, hosts) for host in range(hosts)]
    parts = [
      data_position.resume(made, saved, step, restart_epoch=False).batch(
        step, mine
      )
      for mine in rows
    ]
    whole = {}
    for name in parts[0]:
      whole[name] = np.empty((8, *parts[0][name].shape[1:]))
      for mine, part in zip(rows, parts, strict=True):
        whole[name][mine] = part[name]
    return whole

  moved = [batch(step, 4) for step in range(6)]
  moved += [batch(step, 2) for step in range(6, 12)]
  mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
  sharding = NamedSharding(mesh, PartitionSpec("data"))
  stayed = train_batches(made, 0, 12, sharding=sharding)
  for step, (one, other) in enumerate(zip(moved, stayed, strict=True)):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name], f"{step} {name}")
  assert not np.array_equal(
    moved[5]["decoder_targets"], moved[6]["decoder_targets"]
  )


def test_how_often_it_compiles_is_said(pipeline):
  assert "one step compiles" in describe_batches(pipeline())
  buckets = {"data__source_buckets": (8, 16), "data__target_buckets": (8, 8)}
  said = describe_batches(pipeline(data__packing="bucket", **buckets))
  assert "of one bucket, padded to 8+8, 16+8 tokens; at most 2 steps" in said
  assert "pairs a row" in describe_batches(pipeline(**PACKED))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"data__packing": "packed"}, "data.packing = 'packed': choose one of"),
    ({"data__pack_source_length": 40}, "but data.packing = 'none'"),
    (PACKED | {"data__pack_target_length": 7}, "holds no pair of data.max_tar"),
    ({"data__packing": "bucket"}, "there are no buckets"),
    (PACKED | {"data__pack_source_length": -1}, "between 0"),
  ],
)
def test_shapes_that_do_not_fit_the_packing_are_refused(
  pairs_folder, tiny_config, changes, message, compilations
):
  with pytest.raises(Refusal) as caught:
    loop.run(_change(tiny_config, **changes), str(pairs_folder / "run"))
  assert message in str(caught.value)
  assert not compilations
