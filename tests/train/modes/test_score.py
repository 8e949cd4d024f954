"""Scores of a file of predictions, without a run."""

import json

import pytest

from configs import common
from train.errors import Refusal
from train.modes import score

PAIRS = [
  {"source": f"the {word} cat", "target": f"a {word} cat sat here now"}
  for word in ("red", "blue", "green", "black")
]


@pytest.fixture
def config(tmp_path):
  write(tmp_path / "set.jsonl", PAIRS)
  config = common.get_config()
  config.data.eval = f"valid=jsonl:{tmp_path}/set.jsonl@all[:2]"
  config.data.test = f"jsonl:{tmp_path}/set.jsonl,rest={config.data.eval[6:]}"
  config.eval.metrics = ("exact_match", "bleu", "copy_rate")
  config.eval.bootstrap_samples = 50
  return config


def write(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def predictions(targets):
  return [{"id": i, "prediction": text} for i, text in enumerate(targets)]


def test_a_set_s_targets_are_compared_with_a_file(config, tmp_path, capsys):
  targets = [pair["target"] for pair in PAIRS]
  file = write(tmp_path / "p.jsonl", predictions(targets[:3] + ["a cat"])[::-1])
  row = score.run(config, file)
  assert row["eval/test/exact_match"] == 0.75
  assert 0 < row["eval/test/bleu"] < 100
  # the of a source is in no prediction; its two other words are: of "a red cat
  # sat here now" one n-gram of two and two of one, of "a cat" one of one.
  assert row["eval/test/copy_rate"] == 100 * (3 * 3 + 1) / (3 * 18 + 3)
  low, high = (row[f"eval/test/exact_match_{end}"] for end in ("low", "high"))
  assert low < 0.75 <= high
  out = capsys.readouterr().out
  assert f"4 predictions of {file}\n" in out
  assert f"eval/test/exact_match 0.7500 ({low:.4f} to {high:.4f})\n" in out
  assert "signature of bleu: nrefs:1|case:mixed|eff:no|tok:13a|" in out
  assert out.count("prediction: ") == 4


def test_a_set_is_named_before_the_file(config, tmp_path):
  file = write(tmp_path / "p.jsonl", predictions(["x", "y"]))
  for name in ("rest", "valid"):
    row = score.run(config, f"{name}={file}")
    assert row[f"eval/{name}/exact_match"] == 0
  with pytest.raises(Refusal, match="2 ids are missing"):
    score.run(config, file)
  with pytest.raises(Refusal, match="no set 'tset'; did you mean 'test'"):
    score.run(config, f"tset={file}")
  config.data.test = ""
  assert "eval/valid/bleu" in score.run(config, file)


def test_a_file_with_targets_needs_no_set(config, tmp_path):
  rows = [pair | {"prediction": [pair["target"], "x"]} for pair in PAIRS]
  file = write(tmp_path / "p.jsonl", rows)
  want = score.run(config, file)
  config.data.test = config.data.eval = ""
  got = score.run(config, file)
  assert got["eval/predictions/bleu"] == pytest.approx(100)
  assert list(want.values()) == list(got.values())
  sourceless = [{k: v for k, v in r.items() if k != "source"} for r in rows]
  file = write(tmp_path / "p.jsonl", sourceless)
  with pytest.raises(Refusal, match="line 1 has no source"):
    score.run(config, file)
  config.eval.metrics = ("exact_match",)
  assert score.run(config, file)["eval/predictions/exact_match"] == 1


def test_some_examples_are_told(config, tmp_path, capsys):
  file = write(tmp_path / "p.jsonl", predictions("abcd"))
  config.eval.text_examples = 2
  score.run(config, file)
  assert f"2 predictions of {file}; 2 more are not" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("eval.metrics", ("bluu",), "did you mean 'bleu'"),
    ("eval.bootstrap_samples", 0, "eval.bootstrap_samples = 0"),
    ("data.test", "nope@x", "data.test"),
    ("data.source_field", "article", "article"),
  ],
)
def test_a_wrong_setting_is_refused(config, tmp_path, key, value, message):
  file = write(tmp_path / "p.jsonl", predictions("abcd"))
  config.update_from_flattened_dict({key: value})
  with pytest.raises(Refusal, match=message):
    score.run(config, file)
