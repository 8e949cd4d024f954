"""URIs, splits and slices: what they name, and what they refuse."""

import itertools

import pytest

from data import sources

FIELDS = ("source", "target")


@pytest.fixture
def path(write_jsonl) -> str:
  return write_jsonl(*({"source": str(i), "target": "t"} for i in range(37)))


def _texts(uri):
  source = sources.open_source(uri, fields=FIELDS)
  return [int(source[i]["source"]) for i in range(len(source))]


@pytest.mark.parametrize(
  ("split", "want"),
  [
    ("", range(37)),
    ("@all", range(37)),
    ("@all[:10]", range(10)),
    ("@all[30:]", range(30, 37)),
    ("@all[:]", range(37)),
    ("@all[-3:]", range(34, 37)),
    ("@all[:-30]", range(7)),
    ("@all[:95%]", range(35)),
    ("@all[95%:]", range(35, 37)),
    ("@all[-10%:]", range(34, 37)),
    ("@all[10%:20%]", range(3, 7)),
    ("@all[ 1 : 3 ]", range(1, 3)),
    ("@all[:37]", range(37)),
    ("@all[:100%]", range(37)),
  ],
)
def test_slices(path, split, want):
  assert _texts(f"jsonl:{path}{split}") == list(want)


def test_percents_cut_without_loss(path):
  cuts = [0, 3, 33, 50, 66, 95, 100]
  parts = [
    _texts(f"jsonl:{path}@all[{a}%:{b}%]") for a, b in itertools.pairwise(cuts)
  ]
  assert list(itertools.chain(*parts)) == list(range(37))


@pytest.mark.parametrize(
  ("split", "why"),
  [
    ("@train", "the split 'all', not 'train'"),
    ("@all[:101%]", "101% is out of range"),
    ("@all[:38]", "38 is out of range; there are 37"),
    ("@all[-38:]", "-38 is out of range"),
    ("@all[5:5]", "records 5 to 5 of 37 are none"),
    ("@all[9:3]", "are none"),
    ("@all[:1%]", "records 0 to 0 of 37 are none"),
    ("@all[:0.5]", "'0.5' is no bound"),
    ("@all[:x]", "'x' is no bound"),
    ("@all[:5%%]", "is no bound"),
    ("@all[3]", "is no split"),
    ("@all[1:2:3]", "is no split"),
    ("@all+all", "is no split"),
    ("@../all", "is no split"),
  ],
)
def test_bad_splits_are_refused_by_name(path, split, why):
  uri = f"jsonl:{path}{split}"
  with pytest.raises(ValueError) as error:
    _texts(uri)
  assert why in str(error.value) and uri in str(error.value)


def test_only_the_last_at_sign_divides(write_jsonl):
  record = {"source": "1", "target": "t"}
  path = write_jsonl(record, name="a@b.jsonl")
  assert _texts(f"jsonl:{path}@all") == [1]
  with pytest.raises(ValueError, match="@all at the end where a path holds"):
    _texts(f"jsonl:{path}")


@pytest.mark.parametrize(
  ("uri", "why"),
  [
    ("hf:x", "no split; write hf:x@train"),
    ("parquet:x@train", "a parquet file has the split 'all', not 'train'"),
    (
      "gs://bucket/x",
      "'gs' is no scheme; write scheme:location@split with one of arrayr",
    ),
    ("pairs.jsonl", "'pairs.jsonl' is no scheme"),
    ("pairs.jsonl", "; did you mean 'jsonl:pairs.jsonl'?"),
    ("a/b.csv@all[:9]", "; did you mean 'csv:a/b.csv@all[:9]'?"),
    ("json:x", "; did you mean 'jsonl:x'?"),
    ("tsv:a/x.tsv@all", "; did you mean 'csv:a/x.tsv@all'?"),
    ("date@train", "dates, pydoc"),
    ("", "'' is no scheme"),
    ("pydoc", "no split; write pydoc@train"),
    ("pydoc@", "no split"),
    ("pydoc:x@train", "pydoc has no location"),
    ("jsonl:", "nothing follows jsonl:"),
    ("tfds:@train", "nothing follows tfds:"),
    ("tfds:x", "no split; write tfds:x@train"),
    ("dates@dev", "no such split; choose one of test, valid, train, all"),
    ("pydoc@dev", "no such split; choose one of train, valid, test, all"),
  ],
)
def test_bad_uris_are_refused_by_name(uri, why):
  with pytest.raises(ValueError) as error:
    sources.open_source(uri, fields=FIELDS)
  assert why in str(error.value)


def test_a_uri_that_is_like_none_gets_no_suggestion():
  for uri in ("gs://bucket/x.jsonl", "pairs", "nope@train"):
    with pytest.raises(ValueError) as error:
      sources.open_source(uri, fields=FIELDS)
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
  ("scheme", "name", "meant"),
  [
    ("jsonl", "x.csv", "csv:{}"),
    ("csv", "x.jsonl", "jsonl:{}"),
    ("parquet", "x.tsv", "csv:{}"),
    ("jsonl", "x@y.csv", "csv:{}@all"),
    ("jsonl", "x.txt", ""),
    ("jsonl", "x.jsonl", ""),
  ],
)
def test_a_file_of_another_scheme_is_told(tmp_path, scheme, name, meant):
  path = tmp_path / name
  path.write_text("no record of any scheme, with a comma\n")
  with pytest.raises(ValueError) as error:
    sources.open_source(f"{scheme}:{path}@all", fields=FIELDS)
  assert str(path) in str(error.value)
  hint = f"; did you mean '{meant.format(path)}'?"
  assert str(error.value).endswith(hint) == bool(meant)


def test_field_that_a_built_in_set_lacks():
  with pytest.raises(ValueError, match="no field 'article'; they have source"):
    sources.open_source("dates@valid", fields=("article",))


def test_records_outside_a_slice_cannot_be_reached(path):
  source = sources.open_source(f"jsonl:{path}@all[5:10]", fields=FIELDS)
  assert source[4]["source"] == "9" and source.locate(4).endswith("line 10")
  for index in (-1, 5):
    with pytest.raises(IndexError):
      source[index]


def test_fingerprint_tells_slices_apart(path):
  prints = {
    sources.open_source(f"jsonl:{path}@all{s}", fields=FIELDS).fingerprint
    for s in ("", "[:5]", "[1:5]", "[:37]")
  }
  assert len(prints) == 3


def test_bad_record_choice_is_checked():
  with pytest.raises(ValueError, match="on_bad_record = 'ignore'"):
    sources.open_source("dates@valid", fields=FIELDS, on_bad_record="ignore")


def test_parse_eval():
  parse = sources.parse_eval
  assert parse("") == {}
  assert parse("dates@valid") == {"valid": "dates@valid"}
  assert parse("dates@test", "test") == {"test": "dates@test"}
  assert parse("a=dates@valid, b-2=jsonl:x=y.jsonl@all[:5%]") == {
    "a": "dates@valid",
    "b-2": "jsonl:x=y.jsonl@all[:5%]",
  }
  assert parse("jsonl:x=y.jsonl") == {"valid": "jsonl:x=y.jsonl"}
  with pytest.raises(ValueError, match="two sets are called 'valid'"):
    parse("dates@valid,dates@test")
  with pytest.raises(ValueError, match="'nope' is no scheme"):
    parse("a=nope")


@pytest.mark.parametrize(
  ("text", "want"),
  [
    ("dates@train", {"dates@train": 1.0}),
    ("3*dates@train", {"dates@train": 1.0}),
    (
      "0.7*dates@train, 0.3*pydoc@train",
      {"dates@train": 0.7, "pydoc@train": 0.3},
    ),
    (
      " 2 * dates@train[:5%],6*jsonl:/a*b/**.jsonl,1e-1*jsonl:2*x@y@all",
      {
        "dates@train[:5%]": 2 / 8.1,
        "jsonl:/a*b/**.jsonl": 6 / 8.1,
        "jsonl:2*x@y@all": 0.1 / 8.1,
      },
    ),
    ("jsonl:0.5*x", {"jsonl:0.5*x": 1.0}),
  ],
)
def test_parse_mixture(text, want):
  weights = sources.parse_mixture(text)
  assert weights == pytest.approx(want) and list(weights) == list(want)
  assert sum(weights.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
  ("text", "why"),
  [
    ("dates@train,pydoc@train", "each of several sources needs a weight"),
    ("0.5*dates@train,pydoc@train", "each of several sources needs a weight"),
    ("dates@train,", "each of several sources needs a weight"),
    ("0.5*dates@train,", "each of several sources needs a weight"),
    ("0.5*jsonl:a,b.jsonl", "a path here has no comma"),
    ("0*dates@train,1*pydoc@train", "'0' is no weight; write a number betw"),
    ("-1*dates@train", "'-1' is no weight"),
    ("nan*dates@train", "'nan' is no weight"),
    ("inf*dates@train", "'inf' is no weight"),
    ("*dates@train", "'' is no weight"),
    ("half*dates@train", "'half' is no weight"),
    ("1*dates@train,2*dates@train", "dates@train stands there twice"),
    ("0.5*nope,0.5*dates@train", "'nope' is no scheme"),
    ("0.5*0.5*dates@train", "no scheme"),
    ("", "'' is no scheme"),
  ],
)
def test_bad_mixtures_are_refused_by_name(text, why):
  with pytest.raises(ValueError) as error:
    sources.parse_mixture(text)
  assert why in str(error.value)
