"""A trained model is the checkpoint that its run called the best."""

from train.setup import trained
from train.workdir.metrics_file import read_rows


def test_the_best_is_what_the_run_called_best(finished, tmp_path, one_device):
  """Whatever sets and metric the evaluation itself asks for."""
  config, folder, _ = finished
  config = config.copy_and_resolve_references()
  rows = read_rows(folder / "metrics.jsonl")
  losses = {
    row["step"]: row["eval/valid/loss"]
    for row in rows
    if "eval/valid/loss" in row
  }
  assert len(losses) > 1
  config.data.eval = config.data.eval.replace("valid=", "other=")
  config.train.best_mode = "max"
  # Not measured now, neither as a set nor as text.
  config.train.best_metric = "eval/valid/exact_match"
  config.eval.metrics, config.eval.text_examples = ("bleu",), -1
  this = trained.load(config, str(folder))
  assert this.step == min(losses, key=losses.get)
