"""A folder belongs to one run; what may change is recorded."""

import json

import pytest

from configs import dates
from train import validate, workdir


def test_the_first_run_writes_what_ran(tmp_path):
  config = dates.get_config()
  assert workdir.check_same(config, tmp_path) == {}
  workdir.record(config, tmp_path, {}, 0)
  flat = json.loads((tmp_path / "config.json").read_text())
  assert flat["data.train"] == "dates@train"
  assert flat["sharding.batch"] == ["slice", "data", "fsdp"]
  assert workdir.check_same(config, tmp_path) == {}
  assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_another_config_is_refused_with_the_difference(tmp_path):
  config = dates.get_config()
  workdir.record(config, tmp_path, {}, 0)
  config.optim.lr = 0.5
  config.train.steps = 9
  with pytest.raises(validate.Refusal) as caught:
    workdir.check_same(config, tmp_path)
  assert "optim.lr: 0.002 -> 0.5" in str(caught.value)
  assert "train.steps" not in str(caught.value)


def test_allowed_changes_become_history(tmp_path):
  config = dates.get_config()
  workdir.record(config, tmp_path, {}, 0)
  config.train.steps = 900
  config.train.eval_every_steps = 10
  config.mesh.fsdp = 2
  config.data.store = "store"
  config.data.prepare_workers = 3
  changes = workdir.check_same(config, tmp_path)
  assert changes == {
    "data.store": ["", "store"],
    "data.prepare_workers": [0, 3],
    "train.steps": [1000, 900],
    "train.eval_every_steps": [500, 10],
    "mesh.fsdp": [1, 2],
  }
  workdir.record(config, tmp_path, changes, 350)
  assert workdir.check_same(config, tmp_path) == {}
  assert workdir.recorded(tmp_path)["train.steps"] == 900
  first = json.loads((tmp_path / "config.json").read_text())
  assert first["train.steps"] == 1000
  line = (tmp_path / "config_history.jsonl").read_text()
  assert json.loads(line) == {"step": 350, "changes": changes}


def test_reading_modes_check_the_model_alone(tmp_path):
  config = dates.get_config()
  with pytest.raises(validate.Refusal, match="holds no run"):
    workdir.check_model(config, tmp_path, r"model\..*")
  workdir.record(config, tmp_path, {}, 0)
  config.eval.batch_size = 3
  workdir.check_model(config, tmp_path, r"model\..*")
  config.model.decoder = "bert:tiny"
  with pytest.raises(validate.Refusal, match=r"model\.decoder: 'gpt2:tiny'"):
    workdir.check_model(config, tmp_path, r"model\..*")
