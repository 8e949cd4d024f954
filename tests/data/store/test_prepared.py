"""What is read of a folder is what was prepared, or an error names a file."""

import concurrent.futures
import functools
import json
import pickle
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import pipeline, sources
from data.examples import Tokens
from data.io.digests import text_digest
from data.mixture import Mixture
from data.store import manifest, prepare, prepared
from data.store.encoding import Encoding
from data.store.pairs import Pairs, encode_pairs

FIELDS = ("source", "target")
# In words, which are tokens: "go" and "a" are in the tokenizers.
LENGTHS = st.integers(0, 12)


prepare_set = functools.partial(prepare.prepare_set, workers=1)


class Listed:
  """Records of a list."""

  def __init__(self, records, name="list"):
    self.records, self.name, self.skipped = records, name, 0
    self.fingerprint = text_digest(repr(records))

  def __len__(self):
    return len(self.records)

  def __getitem__(self, index):
    return self.records[index]

  def locate(self, index):
    return f"{self.name}: record {index}"


def assert_same(pairs: Pairs, other: Pairs):
  every = np.arange(len(other))
  assert len(pairs) == len(other) and pairs.counts == other.counts
  assert pairs.tokens == other.tokens
  for name in ("source_lengths", "target_lengths"):
    one, two = getattr(pairs, name)(every), getattr(other, name)(every)
    assert one.dtype == np.int64
    np.testing.assert_array_equal(one, two, err_msg=name)
  np.testing.assert_array_equal(pairs.records, other.records)
  for index in every.tolist():
    one, two = pairs[index], other[index]
    assert one.source.dtype == one.target.dtype == np.int32
    np.testing.assert_array_equal(one.source, two.source)
    np.testing.assert_array_equal(one.target, two.target)
    assert pairs.record(index) == other.record(index)


@pytest.fixture(scope="module")
def make_encoding(wordpiece, bpe) -> Callable[..., Encoding]:
  settings = {
    "source_field": "source",
    "target_field": "target",
    "source_tokenizer": wordpiece,
    "target_tokenizer": bpe,
    "tokens": Tokens(start=0, end=0, source_pad=0, target_pad=0),
    "max_source_length": 8,
    "max_target_length": 5,
    "on_bad_record": "skip",
  }
  return lambda **changes: Encoding(**settings | changes)


@pytest.fixture(scope="module")
def jsonl(tmp_path_factory) -> sources.Source:
  path = tmp_path_factory.mktemp("source") / "pairs.jsonl"
  lines = [
    {"source": "apple " + "very " * (i % 9), "target": "go " * (i % 7)}
    for i in range(22)
  ]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return sources.open_source(f"jsonl:{path}", fields=FIELDS)


@pytest.fixture
def pairs(jsonl, make_encoding, tmp_path) -> prepared.PreparedPairs:
  return prepare_set(jsonl, make_encoding(), tmp_path / "store")


@given(lengths=st.lists(st.tuples(LENGTHS, LENGTHS), min_size=1, max_size=20))
def test_pairs_are_those_encoded_in_memory(lengths, make_encoding):
  records = [
    {"source": "a " * s, "target": f"{i}" * (t > 0) + " go" * (t - 1)}
    for i, (s, t) in enumerate(lengths)
  ]
  source, encoding = Listed(records), make_encoding()
  with tempfile.TemporaryDirectory() as store:
    if not any(s for s, _ in lengths):
      with pytest.raises(ValueError, match=r"is empty in all .* fix"):
        prepare_set(source, encoding, Path(store))
      assert not list(Path(store).glob("*.partial"))
      return
    pairs = prepare_set(source, encoding, Path(store))
    expected = encode_pairs(source, encoding)
    assert_same(pairs, expected)
    counts = pairs.counts
    assert counts.empty_sources == sum(s == 0 for s, _ in lengths)
    kept = [(s, t) for s, t in lengths if s]
    # Two special tokens stand around a source.
    assert counts.truncated_sources == sum(s + 2 > 8 for s, _ in kept)
    assert counts.empty_targets == sum(t == 0 for _, t in kept)
    chosen = np.arange(len(pairs))[::-2].copy()
    assert_same(pairs.take(chosen), expected.take(chosen))
    if len(pairs) > 1:
      assert_same(pairs.permute_sources(1), expected.permute_sources(1))


def test_wide_ids_are_stored_in_four_bytes(
  jsonl, make_encoding, tmp_path, monkeypatch
):
  encoding = make_encoding()
  expected = encode_pairs(jsonl, encoding)
  monkeypatch.setattr(encoding.target_tokenizer, "vocab_size", (1 << 16) + 1)
  pairs = prepare_set(jsonl, encoding, tmp_path)
  assert manifest.read(pairs.folder).id_bytes == 4
  assert_same(pairs, expected)


def test_a_malformed_number_is_no_pair(pairs):
  for index in (-1, len(pairs), 1 << 40):
    with pytest.raises(IndexError, match=f"pair {index} of 22"):
      pairs[index]


def test_another_process_reads_the_same(pairs):
  sent = pickle.dumps(pairs)
  assert_same(pickle.loads(sent), pairs)
  # Neither tables nor open files are sent.
  alone = pickle.dumps(pairs.source)
  assert len(sent) < len(alone) + 2500


def test_threads_read_the_same(pairs, seed):
  draw = random.Random(seed)
  expected = [pairs[i].target.tolist() for i in range(22)]
  fresh = pickle.loads(pickle.dumps(pairs))
  order = [draw.randrange(22) for _ in range(4000)]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    found = list(pool.map(lambda i: fresh[i].target.tolist(), order))
  assert found == [expected[i] for i in order]


def test_batches_are_those_of_pairs_in_memory(pairs, jsonl, make_encoding):
  held = encode_pairs(jsonl, make_encoding())
  one, other = (
    pipeline.make_pipeline(
      Mixture((part,)),
      packing="pack",
      batch_size=4,
      seed=0,
      buckets=(),
      pack_shape=(16, 15),
    )
    for part in (pairs, held)
  )
  for step in range(9):
    for name, array in other.batch(step).items():
      np.testing.assert_array_equal(one.batch(step)[name], array)


def _read_all(folder, source):
  pairs = prepared.open_prepared(folder, source)
  return [
    (pairs[i].source.tobytes(), pairs[i].target.tobytes(), pairs.records[i])
    for i in range(len(pairs))
  ], pairs.counts


def test_a_flipped_bit_is_found_or_harmless(pairs, count, seed):
  """Nowhere does it change what is read."""
  folder, expected = pairs.folder, _read_all(pairs.folder, pairs.source)
  draw, found = random.Random(seed), {}
  for path in sorted(folder.iterdir()):
    whole = path.read_bytes()
    # Most of a shard is padding: what is written is where bytes are not zero.
    full = [i for i, byte in enumerate(whole) if byte]
    places = draw.sample(full, min(len(full), count(25, 400)))
    places += [draw.randrange(len(whole)) for _ in range(count(10, 100))]
    for place in places:
      bytes_ = bytearray(whole)
      bytes_[place] ^= 1 << draw.randrange(8)
      path.write_bytes(bytes_)
      try:
        assert _read_all(folder, pairs.source) == expected, (path, place)
      except manifest.Damaged as error:
        assert str(error).startswith(f"{path}: "), error
        assert f"remove the folder {folder}" in str(error)
        found[path.name] = found.get(path.name, 0) + 1
      # White space of the manifest alone may change.
      if path.name != manifest.NAME:
        with pytest.raises(manifest.Damaged, match=path.name):
          prepared.verify(folder)
    path.write_bytes(whole)
  # The control: it is the flips that were found.
  assert len(found) == len(list(folder.iterdir())) == 9
  assert _read_all(folder, pairs.source) == expected


@pytest.mark.parametrize("left", ["none", "nothing", "half", "all but one"])
def test_a_truncated_file_is_named_when_opened(pairs, left):
  for path in sorted(pairs.folder.iterdir()):
    whole = path.read_bytes()
    sizes = {"nothing": 0, "half": len(whole) // 2, "all but one": -1}
    if left == "none":
      path.unlink()
    else:
      path.write_bytes(whole[: sizes[left]])
    # The manifest ends with white space.
    if (path.name, left) != (manifest.NAME, "all but one"):
      with pytest.raises(manifest.Damaged) as caught:
        prepared.open_prepared(pairs.folder, pairs.source)
      assert str(caught.value).startswith(f"{path}: ")
    path.write_bytes(whole)
  prepared.open_prepared(pairs.folder, pairs.source)


def test_files_that_are_anothers_are_refused(
  pairs, jsonl, make_encoding, tmp_path
):
  encoding = make_encoding(max_target_length=4)
  other = prepare_set(jsonl, encoding, tmp_path / "store")
  assert other.folder != pairs.folder
  one, two = sorted(pairs.folder.glob("shard-0000[01]*"))
  assert one.stat().st_size == two.stat().st_size
  first = one.read_bytes()
  for found in (two, other.folder / one.name):
    one.write_bytes(found.read_bytes())
    with pytest.raises(manifest.Damaged, match=f"{one}.*it is another's"):
      prepared.open_prepared(pairs.folder, jsonl)
    one.write_bytes(first)
  path = pairs.folder / manifest.NAME
  path.write_bytes((other.folder / manifest.NAME).read_bytes())
  with pytest.raises(manifest.Damaged, match=f"{path}: .*not of this folder"):
    prepared.open_prepared(pairs.folder, jsonl)
  shutil.rmtree(pairs.folder)
  again = prepare_set(jsonl, make_encoding(), tmp_path / "store")
  assert_same(again, encode_pairs(jsonl, make_encoding()))


def test_only_its_own_source_opens_a_folder(pairs):
  other = Listed([{"source": "a", "target": "b"}])
  with pytest.raises(ValueError, match="was not prepared from list"):
    prepared.open_prepared(pairs.folder, other)
