"""What a card says of models and data sets: nothing of this machine."""

import pytest

from train.modes import card_names


@pytest.mark.parametrize(
  ("name", "shown"),
  [
    ("bert:tiny", "bert:tiny"),
    ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
    ("gpt2", "gpt2"),
    ("/home/me/bert", "bert"),
    ("~/models/bert/", "bert"),
    ("../bert", "bert"),
    (".cache/bert", "bert"),
    ("C:\\models\\bert", "bert"),
    ("C:/models/bert", "bert"),
    ("one/two/three/four", "four"),
    ("runs/mine/hub", "hub"),
  ],
)
def test_a_folder_is_its_last_name(name, shown):
  assert card_names.model(name) == shown
  assert card_names.is_local(name) == (name != shown)


def test_a_folder_that_looks_like_an_id_is_local(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert card_names.model("user/name") == "user/name"
  (tmp_path / "user/name").mkdir(parents=True)
  assert card_names.model("user/name") == "name"


@pytest.mark.parametrize(
  ("mixture", "shown"),
  [
    ("dates@train", ("dates@train",)),
    ("jsonl:/home/me/x.jsonl", ("jsonl:x.jsonl",)),
    ("csv:~/x.csv@all[:95%]", ("csv:x.csv@all[:95%]",)),
    ("csv:C:\\me\\x.csv", ("csv:x.csv",)),
    ("parquet:/home/me/*/part-*.parquet", ("parquet:part-*.parquet",)),
    ("text:/home/me/a.txt::b/c.txt", ("text:a.txt::c.txt",)),
    ("hf:/home/me/set@train", ("hf:set@train",)),
    ("hf:user/name/config@train", ("hf:user/name/config@train",)),
    ("tfds:wmt/de:1.0@train", ("tfds:wmt/de:1.0@train",)),
    ("jsonl:/home/me@work/x.jsonl@all", ("jsonl:x.jsonl@all",)),
    (
      "3*jsonl:/home/me/x.jsonl,1*dates@train",
      ("0.75*jsonl:x.jsonl", "0.25*dates@train"),
    ),
  ],
)
def test_a_data_set_is_named_without_its_folder(mixture, shown):
  assert card_names.datasets(mixture) == shown
