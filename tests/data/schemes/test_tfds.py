"""TensorFlow Datasets without TensorFlow: whole, by number, or refused."""

import json
import pathlib
import sys

import pytest
import tensorflow_datasets as tfds

from data.sources import open_source

FIELDS = ("article", "highlights")


class TinyPairs(tfds.core.GeneratorBasedBuilder):
  """A data set of 50 and 7 pairs."""

  VERSION = tfds.core.Version("1.0.0")
  LETTER = "é"
  # Looking for the checksums beside this file needs one more package.
  code_path = None

  def _info(self):
    text = tfds.features.Text()
    words = tfds.features.Sequence(tfds.features.Text())
    features = {"article": text, "highlights": text, "words": words}
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {
      "train": self._generate_examples(0, 50),
      "test": self._generate_examples(50, 57),
    }

  def _generate_examples(self, start, stop):
    for i in range(start, stop):
      texts = {"article": f"{self.LETTER} {i}", "highlights": f"{i}"}
      yield i, texts | {"words": ["a"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  path = tmp_path_factory.mktemp("tfds")
  builder = TinyPairs(data_dir=path, file_format="array_record")
  builder.download_and_prepare()
  return path


@pytest.fixture(autouse=True)
def data_dir(monkeypatch, folder):
  monkeypatch.setenv("TFDS_DATA_DIR", str(folder))


def _numbers(uri):
  source = open_source(uri, fields=FIELDS)
  records = [source[i] for i in range(len(source))]
  assert all(r["article"] == f"é {r['highlights']}" for r in records)
  return [int(r["highlights"]) for r in records]


@pytest.mark.parametrize("name", ["tiny_pairs", "tiny_pairs:1.0.0"])
def test_splits_are_read_whole(name):
  train, test = _numbers(f"tfds:{name}@train"), _numbers(f"tfds:{name}@test")
  assert sorted(train) == list(range(50))
  assert sorted(test) == list(range(50, 57))
  assert _numbers(f"tfds:{name}@all") == train + test
  assert _numbers(f"tfds:{name}@train[:10%]") == train[:5]
  assert "tensorflow" not in sys.modules


def test_all_fields_are_as_json_has_them():
  source = open_source(
    "tfds:tiny_pairs@test", fields=("highlights",), all_fields=True
  )
  record = source[0]
  assert record["article"] == f"é {record['highlights']}"
  assert record["words"] == ["a"] and type(record["words"]) is list


def test_only_the_fields_that_were_asked_for():
  source = open_source("tfds:tiny_pairs@test", fields=("highlights",))
  assert list(source[0]) == ["highlights"]
  assert source.locate(3) == "tfds:tiny_pairs@test: record 3"
  train = open_source("tfds:tiny_pairs@train", fields=("highlights",))
  assert source.fingerprint != train.fingerprint


@pytest.mark.parametrize(
  ("uri", "fields", "why"),
  [
    ("tfds:tiny_pairs@dev", FIELDS, "no split 'dev'; there are all, train"),
    (
      "tfds:tiny_pairs@test",
      ("title",),
      "no field 'title'; they have article, highlights, words",
    ),
    ("tfds:no_such_set@test", FIELDS, "no such dataset is prepared in"),
    ("tfds:tiny_pairs:9.9.9@test", FIELDS, "no such dataset is prepared in"),
    ("tfds:tiny_pairs/other@test", FIELDS, "no such dataset is prepared in"),
    ("tfds:../etc@test", FIELDS, "set TFDS_DATA_DIR"),
    ("tfds:cnn_dailymail@test", FIELDS, "tfds build cnn_dailymail --file_form"),
  ],
)
def test_what_is_not_there_is_named(uri, fields, why):
  with pytest.raises(ValueError) as error:
    open_source(uri, fields=fields)
  assert why in str(error.value) and "tfds:" in str(error.value)


def test_field_that_is_no_text():
  source = open_source("tfds:tiny_pairs@test", fields=("words",))
  with pytest.raises(ValueError, match=r"record 0 has a .* in the field 'wor"):
    source[0]


class BadPairs(TinyPairs):
  """The same, with a test record that is no text."""

  def _generate_examples(self, start, stop):
    for key, record in super()._generate_examples(start, stop):
      yield key, record | {"article": b"\xff" if key == 53 else b"a"}


def test_a_record_that_is_not_utf_8_is_an_error_or_skipped(
  tmp_path, monkeypatch
):
  BadPairs(data_dir=tmp_path, file_format="array_record").download_and_prepare()
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  uri = "tfds:bad_pairs@test"
  source = open_source(uri, fields=FIELDS)
  with pytest.raises(
    ValueError, match=r"record \d: the field 'article' is not"
  ):
    [source[i] for i in range(7)]
  source = open_source(uri, fields=FIELDS, on_bad_record="skip")
  assert (len(source), source.skipped) == (6, 1)
  places = [source.locate(i) for i in range(6)]
  assert len(set(places)) == 6 and all(source[i] for i in range(6))
  numbers = {
    record["highlights"] for record in map(source.__getitem__, range(6))
  }
  assert numbers == {"50", "51", "52", "54", "55", "56"}


def test_a_set_that_was_made_anew_is_another(tmp_path, monkeypatch):
  found = []
  # The same name, version and counts, and as many bytes.
  for number, letter in enumerate("éêé"):
    monkeypatch.setattr(TinyPairs, "LETTER", letter)
    data_dir = tmp_path / str(number)
    builder = TinyPairs(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    source = open_source("tfds:tiny_pairs@test", fields=FIELDS)
    found.append(source.fingerprint)
  assert found[0] == found[2] != found[1]


def _changed(folder, tmp_path, monkeypatch, change):
  """The data set with another dataset_info.json."""
  name = pathlib.Path("tiny_pairs", "1.0.0")
  (tmp_path / name).mkdir(parents=True)
  for file in (folder / name).iterdir():
    raw = file.read_bytes()
    if file.name == "dataset_info.json":
      raw = json.dumps(change(json.loads(raw))).encode()
    (tmp_path / name / file.name).write_bytes(raw)
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))


def test_a_record_too_few_is_an_error(folder, tmp_path, monkeypatch):
  def change(info):
    for split in info["splits"]:
      split["shardLengths"] = [str(int(n) + 1) for n in split["shardLengths"]]
    return info

  _changed(folder, tmp_path, monkeypatch, change)
  with pytest.raises(ValueError, match="7 records were found of 8"):
    open_source("tfds:tiny_pairs@test", fields=FIELDS)


def test_a_missing_file_is_named(folder, tmp_path, monkeypatch):
  _changed(folder, tmp_path, monkeypatch, lambda info: info)
  file = next(tmp_path.rglob("*-test.array_record*"))
  file.unlink()
  assert len(open_source("tfds:tiny_pairs@train", fields=FIELDS)) == 50
  for split in ("test", "all"):
    with pytest.raises(FileNotFoundError, match=file.name):
      open_source(f"tfds:tiny_pairs@{split}", fields=FIELDS)


def test_another_format_is_refused(folder, tmp_path, monkeypatch):
  _changed(
    folder,
    tmp_path,
    monkeypatch,
    lambda info: info | {"fileFormat": "tfrecord"},
  )
  with pytest.raises(ValueError, match="prepared as tfrecord"):
    open_source("tfds:tiny_pairs@test", fields=FIELDS)
