"""The sets of a run: mixtures."""

import json

import pytest

from train import datasets, initialize


def _write(path, *words):
  lines = [json.dumps({"source": w, "target": w}) + "\n" for w in words]
  path.write_text("".join(lines))
  return f"jsonl:{path}"


def test_a_mixture_is_refused_by_name(tiny_config, tmp_path):
  uris = [_write(tmp_path / name, "word") for name in "ab"]
  tiny_config.data.train = f"0.5*{uris[0]},0.5*{uris[1]}"
  with pytest.raises(ValueError, match="mixtures do not exist yet; name one"):
    datasets.check(tiny_config)
  tiny_config.data.train = f"2*{uris[0]}"
  datasets.check(tiny_config)


def test_tokenizers_learn_from_all_of_a_mixture(tiny_config, tmp_path):
  uris = [
    _write(tmp_path / "one", *["alpha alpha"] * 9),
    _write(tmp_path / "two", *["omega omega"] * 9),
  ]
  tiny_config.data.train = f"1*{uris[0]},2*{uris[1]}"
  task = initialize.build(tiny_config, tmp_path / "run")
  for word in ("alpha", "omega"):
    assert task.source_tokenizer.token_id(word) is not None
