"""Evaluation of a trained model: complete, on any mesh, and compared."""

import json
import shutil

import numpy as np
import pytest

from train.errors import Refusal
from train.evaluators import rouge
from train.modes import evaluate


def test_on_eight_devices_it_repeats_what_training_measured(
  finished, tmp_path, capsys
):
  """Other batches, another mesh, a last batch that is not full."""
  config, folder, result = finished
  run = shutil.copytree(folder, tmp_path / "run")
  config = config.copy_and_resolve_references()
  # Rounded up to 16; the second set is smaller than the mesh.
  config.eval.batch_size = 13
  config.data.test = f"{config.data.eval},few={config.data.eval[6:-3]}3]"
  config.eval.permute_sources = True
  config.eval.bootstrap_samples = 50
  row = evaluate.run(config, str(run), step=4)
  np.testing.assert_allclose(
    row["eval/valid/loss"], result["eval/valid/loss"], rtol=1e-5
  )
  for metric in ("accuracy", "exact_match", "rougeL"):
    name = f"eval/valid/{metric}"
    np.testing.assert_allclose(row[name], result[name], rtol=1e-6)
  # The same pairs, sources exchanged: another loss of the same targets.
  assert row["eval/valid_permuted/loss"] != row["eval/valid/loss"]
  np.testing.assert_allclose(
    row["eval/valid_gain/loss"],
    row["eval/valid_permuted/loss"] - row["eval/valid/loss"],
    rtol=1e-6,
  )
  assert row["eval/valid_gain/loss_low"] <= row["eval/valid_gain/loss_high"]
  few, valid = (
    (run / f"predictions/{name}-00000004.jsonl").read_text().splitlines()
    for name in ("few", "valid")
  )
  assert len(few) == 3 and few == valid[:3]
  # What training generated stays as it was.
  assert (
    valid == (run / "samples/valid-00000004.jsonl").read_text().split("\n")[:-1]
  )
  assert not (run / "samples/few-00000004.jsonl").exists()
  out = capsys.readouterr().out
  assert out.count("prediction:") == config.eval.print_examples + 3
  loss, low, high = (row[f"eval/valid/loss{x}"] for x in ("", "_low", "_high"))
  assert low < loss < high
  assert f"\neval/valid/loss {loss:.4f} ({low:.4f} to {high:.4f})\n" in out
  kept = json.loads((run / "predictions/metrics-00000004.json").read_text())
  assert kept["step"] == 4 and kept["metrics"] == row
  signature = kept["signatures"]["rougeL"]
  names = "rouge1, rouge2, rougeL, rougeLsum"
  assert f"\nsignature of {names}: {signature}\n" in out
  _, _, gains = out.partition("valid: with its own sources, with permuted ones")
  printed = [line.split()[0] for line in gains.splitlines()[1:] if line]
  metrics = ["loss", "accuracy", "exact_match", *rouge.NAMES]
  assert printed[: len(metrics)] == metrics
  assert not list(run.glob("*/*permuted*"))


def test_text_of_some_examples_is_spread_over_the_set(
  finished, tmp_path, one_device
):
  config, folder, _ = finished
  run = shutil.copytree(folder, tmp_path / "run")
  config = config.copy_and_resolve_references()
  config.eval.text_examples = 3
  config.data.test = f"{config.data.eval},again={config.data.eval[6:]}"
  row = evaluate.run(config, str(run), step=4)
  lines = (run / "predictions/valid-00000004.jsonl").read_text().splitlines()
  assert [json.loads(line)["id"] for line in lines] == [0, 7, 14]
  assert row["eval/again/loss"] == row["eval/valid/loss"]


def test_a_folder_without_a_run_and_another_model_are_refused(
  finished, tmp_path
):
  config, folder, _ = finished
  with pytest.raises(Refusal, match="holds no run: train there first"):
    evaluate.run(config, str(tmp_path))
  config = config.copy_and_resolve_references()
  config.model.decoder = "bert:tiny"
  with pytest.raises(Refusal, match=r"model\.decoder: 'gpt2:tiny'"):
    evaluate.run(config, str(folder))


def test_a_checkpoint_that_is_not_there_is_refused(finished, one_device):
  config, folder, _ = finished
  with pytest.raises(Refusal, match="3"):
    evaluate.run(config, str(folder), step=3)
