"""Data sets of the library `datasets`: local folders, splits, bad rows."""

import importlib.metadata
import json
import pickle

import pytest

from data.sources import open_source

FIELDS = ("source", "target")
RECORDS = [{"source": f"é {i}", "target": f"{i}", "n": i} for i in range(7)]


def _open(location, fields=FIELDS, **settings):
  return open_source(f"hf:{location}", fields=fields, **settings)


def test_a_library_that_is_missing_or_old_is_named(monkeypatch, tmp_path):
  def version(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(importlib.metadata, "version", version)
  with pytest.raises(ValueError, match=r"pip install 'datasets>=4'"):
    _open(f"{tmp_path}@all")
  monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.6.0")
  with pytest.raises(ValueError, match=r"datasets 3.6.0 may run the code"):
    _open(f"{tmp_path}@all")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    # Read when it is imported.
    patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("HF_DATASETS_OFFLINE", "1")
    yield pytest.importorskip("datasets")


def _check(source):
  assert [source[i] for i in range(7)] == [
    {field: record[field] for field in FIELDS} for record in RECORDS
  ]
  again = pickle.loads(pickle.dumps(source))
  assert again[6] == source[6] and again.fingerprint == source.fingerprint


def test_what_the_library_saved(library, tmp_path):
  made = library.Dataset.from_list(RECORDS)
  # A format that was saved with it changes no text.
  made.with_format("numpy").save_to_disk(tmp_path / "one")
  library.DatasetDict(train=made, dev=made.select([3, 1])).save_to_disk(
    tmp_path / "two"
  )
  one, two = _open(f"{tmp_path}/one@all"), _open(f"{tmp_path}/two@train")
  _check(one)
  _check(two)
  dev = _open(f"{tmp_path}/two@dev")
  assert [dev[i]["target"] for i in range(2)] == ["3", "1"]
  assert dev.locate(1) == f"hf:{tmp_path}/two@dev: row 1"
  assert one.fingerprint == two.fingerprint != dev.fingerprint
  assert len(_open(f"{tmp_path}/two@train[:3]")) == 3
  with pytest.raises(
    ValueError, match=r"no split 'test'; there are train, dev"
  ):
    _open(f"{tmp_path}/two@test")


def test_a_folder_of_files(library, tmp_path):
  for name, records in (("train", RECORDS), ("test", RECORDS[:2])):
    lines = [json.dumps(record) + "\n" for record in records]
    (tmp_path / f"{name}.jsonl").write_text("".join(lines))
  _check(_open(f"{tmp_path}@train"))
  assert len(_open(f"{tmp_path}@test")) == 2


def test_rows_and_fields_that_are_no_texts(library, tmp_path):
  bad = [*RECORDS[:2], RECORDS[2] | {"target": None}, *RECORDS[3:]]
  library.Dataset.from_list(bad).save_to_disk(tmp_path)
  with pytest.raises(ValueError, match=r"row 2 is null in the field 'target'"):
    _open(f"{tmp_path}@all")
  source = _open(f"{tmp_path}@all", on_bad_record="skip")
  assert (len(source), source.skipped) == (6, 1)
  assert source[2]["target"] == "3" and source.locate(2).endswith("row 3")
  with pytest.raises(ValueError, match=r"the field 'n' holds .*int64"):
    _open(f"{tmp_path}@all", ("n",))
  with pytest.raises(
    ValueError, match="no field 'x'; they have source, target"
  ):
    _open(f"{tmp_path}@all", ("x",))


def test_no_code_is_run(library, tmp_path):
  folder = tmp_path / "set"
  folder.mkdir()
  (folder / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
  with pytest.raises(ValueError, match="neither a folder here nor"):
    _open(f"{folder}@train")
  assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
  ("location", "why"),
  [
    ("no/such_set", "neither a folder here nor what the Hub gives"),
    ("no/such_set/config", "neither a folder here nor what the Hub gives"),
    ("a/b/c/d", "write hf:user/name or hf:user/name/config"),
    ("../x//y", "write hf:user/name"),
  ],
)
def test_what_is_not_there_is_named(library, location, why):
  with pytest.raises(ValueError) as error:
    _open(f"{location}@train")
  assert why in str(error.value) and f"hf:{location}@train" in str(error.value)
