"""A folder belongs to one run; what may change is recorded."""

import json

import pytest

from configs import dates
from train.errors import Refusal
from train.workdir import recorded_config


def test_the_first_run_writes_what_ran(tmp_path):
  config = dates.get_config()
  assert recorded_config.check_same(config, tmp_path) == {}
  recorded_config.record(config, tmp_path, {}, 0)
  flat = json.loads((tmp_path / "config.json").read_text())
  assert flat["data.train"] == "dates@train"
  assert flat["sharding.batch"] == ["slice", "data", "fsdp"]
  assert recorded_config.check_same(config, tmp_path) == {}
  assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_another_config_is_refused_with_the_difference(tmp_path):
  config = dates.get_config()
  recorded_config.record(config, tmp_path, {}, 0)
  config.optim.lr = 0.5
  config.train.steps = 9
  with pytest.raises(Refusal) as caught:
    recorded_config.check_same(config, tmp_path)
  assert "optim.lr: 0.002 -> 0.5" in str(caught.value)
  assert "train.steps" not in str(caught.value)


def test_allowed_changes_become_history(tmp_path):
  config = dates.get_config()
  recorded_config.record(config, tmp_path, {}, 0)
  config.train.steps = 900
  config.train.eval_every_steps = 10
  config.mesh.fsdp = 2
  config.data.store = "store"
  config.data.prepare_workers = 3
  changes = recorded_config.check_same(config, tmp_path)
  assert changes == {
    "data.store": ["", "store"],
    "data.prepare_workers": [0, 3],
    "train.steps": [1000, 900],
    "train.eval_every_steps": [500, 10],
    "mesh.fsdp": [1, 2],
  }
  recorded_config.record(config, tmp_path, changes, 350)
  assert recorded_config.check_same(config, tmp_path) == {}
  assert recorded_config.recorded(tmp_path)["train.steps"] == 900
  first = json.loads((tmp_path / "config.json").read_text())
  assert first["train.steps"] == 1000
  line = (tmp_path / "config_history.jsonl").read_text()
  assert json.loads(line) == {"step": 350, "changes": changes}


def test_a_run_from_before_metrics_had_names_goes_on(tmp_path):
  config = dates.get_config()
  flat = recorded_config.json_values(config)
  new = ("metrics", "rouge_stemmer", "rouge_sentences", "bleu_tokenize")
  new = {f"eval.{name}" for name in (*new, "lowercase")}
  old = {key: value for key, value in flat.items() if key not in new}
  assert len(old) == len(flat) - 5
  (tmp_path / "config.json").write_text(json.dumps(old))
  assert recorded_config.check_same(config, tmp_path) == {}
  config.eval.metrics = ("bleu",)
  with pytest.raises(Refusal, match=r"eval\.metrics: None -> \['bleu'\]"):
    recorded_config.check_same(config, tmp_path)


def test_reading_modes_check_the_model_alone(tmp_path):
  config = dates.get_config()
  with pytest.raises(Refusal, match="holds no run"):
    recorded_config.check_model(config, tmp_path, r"model\..*")
  recorded_config.record(config, tmp_path, {}, 0)
  config.eval.batch_size = 3
  recorded_config.check_model(config, tmp_path, r"model\..*")
  config.model.decoder = "bert:tiny"
  with pytest.raises(Refusal, match=r"model\.decoder: 'gpt2:tiny'"):
    recorded_config.check_model(config, tmp_path, r"model\..*")


@pytest.mark.parametrize(
  ("name", "raw"),
  [
    ("config.json", b"\xff" * 4000),
    ("config.json", b'"' + b"secret " * 1000),
    ("config.json", b'["' + b"secret " * 1000 + b'"]'),
    ("config.json", b"[" * 50_000),
    ("config_history.jsonl", b"secret " * 1000),
    ("config_history.jsonl", b'{"changes": {"seed": 1}}'),
    ("config_history.jsonl", b"{}"),
  ],
)
def test_a_damaged_record_of_a_run_is_named(tmp_path, name, raw):
  config = dates.get_config()
  recorded_config.record(config, tmp_path, {}, 0)
  (tmp_path / name).write_bytes(raw)
  with pytest.raises(Refusal) as caught:
    recorded_config.check_same(config, tmp_path)
  message = str(caught.value)
  assert message.startswith(f"{tmp_path / name} is damaged (")
  assert len(message) < 500 + len(str(tmp_path))


def test_what_differs_from_a_damaged_record_has_an_end(tmp_path):
  config = dates.get_config()
  recorded_config.record(config, tmp_path, {}, 0)
  path = tmp_path / "config.json"
  flat = json.loads(path.read_text())
  flat |= {f"{'secret ' * 1000}{n}": "secret " * 1000 for n in range(999)}
  path.write_text(json.dumps(flat))
  with pytest.raises(Refusal, match="999 in all") as caught:
    recorded_config.check_same(config, tmp_path)
  assert len(str(caught.value)) < 200_000


def test_a_key_that_did_not_exist_may_say_what_was_done(tmp_path):
  config = dates.get_config()
  recorded_config.record(config, tmp_path, {}, 0)
  path = tmp_path / "config.json"
  flat = json.loads(path.read_text())
  for key in (
    "train.z_loss",
    "train.smoothing_form",
    "optim.decay_steps",
    "optim.momentum",
    "optim.groups",
    "optim.ema_decay",
  ):
    del flat[key]
  path.write_text(json.dumps(flat))
  assert recorded_config.check_same(config, tmp_path) == {}
  config.train.smoothing_form = "others"
  with pytest.raises(Refusal, match=r"train\.smoothing_form: \S+ -> 'others'"):
    recorded_config.check_same(config, tmp_path)
