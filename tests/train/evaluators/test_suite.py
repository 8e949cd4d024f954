"""A row of metrics and the samples beside it, of results made by hand."""

import json

import numpy as np

from train.evaluators import suite
from train.evaluators.loss import Losses

LOSSES = Losses(np.array([1.0, 5.0]), np.array([1.0, 2.0]), 2.0)


def test_losses_are_of_tokens_and_scores_of_examples():
  scores = {"exact_match": np.array([1.0, 0.0, 0.0, 0.0])}
  assert suite.Result(LOSSES, scores, []).metrics() == {
    "loss": 2.0,
    "accuracy": 2 / 3,
    "exact_match": 0.25,
  }
  assert suite.Result(LOSSES, {}, []).metrics().keys() == {"loss", "accuracy"}


def test_samples_are_written_of_sets_that_have_text(tmp_path):
  samples = [suite.Sample(i, f"s{i}", "\u2028", "p") for i in (4, 2)]
  results = {
    "with": suite.Result(LOSSES, {}, samples),
    "without": suite.Result(LOSSES, {}, []),
    "unasked": suite.Result(LOSSES, {}, samples),
  }
  suite.write_samples(tmp_path, 12, results, ["with", "without"])
  (path,) = (tmp_path / "samples").iterdir()
  assert path.name == "with-00000012.jsonl"
  lines = path.read_text().splitlines()
  assert [json.loads(line)["id"] for line in lines] == [4, 2]
  assert json.loads(lines[0]) == {
    "id": 4, "source": "s4", "target": "\u2028", "prediction": "p",
  }  # fmt: skip
