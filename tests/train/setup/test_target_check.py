"""Targets that the target tokenizer cannot write are noticed at the start."""

import json
import logging

import pytest

from train import loop, start
from train.errors import Refusal
from train.modes import inspect
from train.setup import datasets, target_check, trained
from train.setup.task import build_task

NAMES = ("Ana", "Bob", "Eve", "Zoë")


@pytest.fixture
def emails(tiny_config, tmp_path):
  """A run whose targets are e-mail addresses, with a BERT decoder."""
  with open(tmp_path / "pairs.jsonl", "w", encoding="utf-8") as file:
    for number in range(40):
      name = f"{NAMES[number % 4]}{number}"
      pair = {"source": f"write to {name}", "target": f"{name}@mail.org"}
      file.write(json.dumps(pair) + "\n")
  tiny_config.model.decoder = "bert:tiny"
  tiny_config.data.max_target_length = 16
  tiny_config.data.target_vocab_size = 300
  return tiny_config


def measured(config, folder):
  datasets.check(config, folder)
  task = build_task(config, folder)
  pairs = datasets.train_pairs(config, task, folder)
  trips = target_check.measure(config, task, pairs)
  return trips.counts, target_check.advice(config, task, trips)


def test_an_uncased_decoder_is_told_what_to_set(emails, tmp_path):
  counts, said = measured(emails, tmp_path / "uncased")
  assert counts == {
    "unchanged": 0, "spaces": 0, "case": 40, "characters": 0,
  }  # fmt: skip
  assert "set data.keep_case=True" in said and "keeps spaces" in said
  emails.data.keep_case = True
  counts, said = measured(emails, tmp_path / "cased")
  assert counts["spaces"] == 40
  assert "keep_case" not in said and "keeps spaces" in said
  # Which is what helps.
  emails.model.decoder = "gpt2:tiny"
  counts, said = measured(emails, tmp_path / "bytes")
  assert (counts["unchanged"], said) == (40, "")


def test_a_named_tokenizer_is_to_be_replaced(emails, tmp_path):
  measured(emails, tmp_path / "run")
  emails.data.target_tokenizer = str(tmp_path / "run/tokenizers/target")
  _, said = measured(emails, tmp_path / "named")
  assert "data.keep_case" not in said and "name a cased tokenizer" in said
  emails.data.source_tokenizer = emails.data.target_tokenizer
  emails.data.keep_case = True
  with pytest.raises(Refusal, match=r"data\.keep_case = True .* trains none"):
    inspect.run(emails, str(tmp_path / "refused"))


def test_truncation_does_not_count(emails, tmp_path):
  emails.model.decoder = "gpt2:tiny"
  emails.data.max_target_length = 3
  counts, _ = measured(emails, tmp_path / "run")
  assert counts["unchanged"] == 40


def test_a_sample_is_bounded_and_shared(emails, tmp_path, monkeypatch):
  lines = (tmp_path / "pairs.jsonl").read_text()
  (tmp_path / "plain.jsonl").write_text(
    json.dumps({"source": "a", "target": "plain"}) + "\n"
  )
  (tmp_path / "many.jsonl").write_text(lines * 9)
  monkeypatch.setattr(target_check, "SAMPLE", 20)
  emails.data.train = (
    f"1*jsonl:{tmp_path}/plain.jsonl,3*jsonl:{tmp_path}/many.jsonl"
  )
  counts, _ = measured(emails, tmp_path / "run")
  assert (counts["unchanged"], counts["case"]) == (1, 15)


class Stopped(Exception):
  """The run got as far as the test needs."""


def test_inspection_and_the_start_of_a_run_say_it(
  emails, tmp_path, capsys, caplog, compilations, monkeypatch
):
  inspect.run(emails, str(tmp_path / "inspected"))
  out = capsys.readouterr().out
  said = "0.0% of 40 targets come back unchanged from the target tokenizer, "
  assert f"{said}100.0% lose capitals or accents; 'Ana0@mail.org'" in out
  assert "\nwarning: exact_match counts" in out

  def stop(*_, **__):
    raise Stopped

  monkeypatch.setattr(start, "Suite", stop)
  with caplog.at_level(logging.INFO), pytest.raises(Stopped):
    start.build_run(emails, tmp_path / "run")
  assert not compilations
  info, warning = (
    record for record in caplog.records if record.filename == "target_check.py"
  )
  assert said in info.getMessage()
  assert warning.levelno == logging.WARNING
  assert "data.keep_case=True" in warning.getMessage()


def test_what_a_run_kept_may_not_change(finished):
  config, folder, _ = finished
  other = config.copy_and_resolve_references()
  other.data.keep_case = True
  with pytest.raises(Refusal, match=r"data\.keep_case: False -> True"):
    loop.run(other, str(folder))
  with pytest.raises(Refusal, match=r"data\.keep_case: False -> True"):
    trained.load(other, str(folder))
