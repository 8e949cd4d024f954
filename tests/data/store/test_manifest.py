"""The manifest: what decides a set, written for people and read back."""

import json

import pytest

from data.examples import Tokens
from data.store import manifest, prepare

from .conftest import bits


def test_every_fact_has_a_folder_of_its_own(source, make_encoding, bpe):
  changes = [
    {},
    {"source_field": "target"},
    {"target_field": "source"},
    {"source_tokenizer": bpe},
    {"tokens": Tokens(start=1, end=0, source_pad=0, target_pad=0)},
    {"tokens": Tokens(start=0, end=0, source_pad=0, target_pad=1)},
    {"max_source_length": 9},
    {"max_target_length": 9},
    {"on_bad_record": "skip"},
  ]
  keys = [
    manifest.key(manifest.facts(source, make_encoding(**change)))
    for change in changes
  ]
  assert len(set(keys)) == len(changes)


def test_a_manifest_can_be_read_by_people(source, make_encoding, tmp_path):
  pairs = prepare.prepare_set(source, make_encoding(), tmp_path, workers=1)
  values = json.loads((pairs.folder / "manifest.json").read_text())
  assert values["uri"] == source.name
  assert values["facts"]["source"] == source.fingerprint
  assert values["facts"]["max_target_length"] == 12
  assert values["counts"]["pairs"] == 22
  assert [shard["pairs"] for shard in values["shards"]] == [4, 4, 4, 4, 4, 2]
  assert set(values["files"]) == set(bits(pairs.folder)) - {"manifest.json"}


def test_what_was_written_is_read_and_no_other_value(
  source, make_encoding, tmp_path
):
  folder = prepare.prepare_set(
    source, make_encoding(), tmp_path, workers=1
  ).folder
  path, made = folder / manifest.NAME, manifest.read(folder)
  assert made.to_json() == path.read_text()
  # Every value is under the digest.
  values = json.loads(path.read_text())
  for name, other in (("uri", "another"), ("id_bytes", 4), ("facts", {})):
    path.write_text(json.dumps(values | {name: other}))
    with pytest.raises(manifest.Damaged, match="it is damaged; remove the fol"):
      manifest.read(folder)
  path.write_text(json.dumps(values))
  assert manifest.read(folder) == made
