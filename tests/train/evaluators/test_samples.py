"""Generated texts in files, and the signatures of their metrics."""

import json

import numpy as np

from train.evaluators import samples
from train.evaluators.samples import Sample
from train.evaluators.statistics import mean


def test_samples_are_written_of_sets_that_have_text(tmp_path):
  found = [Sample(i, f"s{i}", "\u2028", "p") for i in (4, 2)]
  samples.write(tmp_path / "texts", 12, {"with": found, "without": []})
  (path,) = (tmp_path / "texts").iterdir()
  assert path.name == "with-00000012.jsonl"
  lines = path.read_text().splitlines()
  assert [json.loads(line)["id"] for line in lines] == [4, 2]
  assert json.loads(lines[0]) == {
    "id": 4, "source": "s4", "target": "\u2028", "prediction": "p",
  }  # fmt: skip


def test_texts_are_those_of_the_samples():
  texts = samples.texts([Sample(0, "s", "t", "p"), Sample("a", "u", "v", "w")])
  assert texts.sources == ["s", "u"]
  assert texts.references == ["t", "v"]
  assert texts.predictions == ["p", "w"]


def test_metrics_without_a_signature_have_none():
  one = np.ones(1)
  assert samples.signatures({"a": mean(one), "b": mean(one, "x:1")}) == {
    "b": "x:1"
  }
