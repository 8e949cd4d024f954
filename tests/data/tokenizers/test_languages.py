"""Targets in the target mode: the ids that transformers gives `text_target`."""

import hashlib
import itertools
import json
import pickle
from typing import Any

import pytest
import transformers

from data import sources
from data.collate import collate
from data.examples import Tokens
from data.store.encoding import Encoding
from data.store.manifest import facts, key
from data.store.pairs import encode_pairs
from data.store.prepare import prepare_set
from data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from tests import translators
from tests.translators import ENGLISH, GERMAN, LANGUAGES

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacre")
TEXTS = [*GERMAN[:9], "unseen Ünïcode", "", "a"]
OF_LANGUAGES = [kind for kind in LANGUAGES if kind != "marian"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """kind to folder; none names a language."""
  folder = tmp_path_factory.mktemp("translators")
  return {kind: translators.save(kind, folder / kind) for kind in LANGUAGES}


def _options(kind):
  """Of `load`, and of transformers' class."""
  ours: dict[str, Any]
  theirs: dict[str, Any]
  source, target, _ = LANGUAGES[kind]
  ours = {"source_language": source, "target_language": target}
  theirs = {"src_lang": source, "tgt_lang": target}
  return (ours, theirs) if source else ({}, {})


def _load(folders, kind):
  """Ours in both modes, and transformers' own."""
  ours, theirs = _options(kind)
  load = transformers.AutoTokenizer.from_pretrained
  return (
    load_tokenizer(folders[kind], **ours),
    load_tokenizer(folders[kind], target=True, **ours),
    load(folders[kind], **theirs),
  )


@pytest.mark.parametrize("kind", LANGUAGES)
def test_targets_are_those_of_text_target(folders, kind, tmp_path):
  source, target, theirs = _load(folders, kind)
  want = {
    "source": theirs(TEXTS)["input_ids"],
    "target": theirs(text_target=TEXTS)["input_ids"],
  }
  assert want["source"] != want["target"]
  # By turns: no mode is left behind in the other.
  for _ in range(2):
    assert target.encode_batch(TEXTS) == want["target"]
    assert source.encode_batch(TEXTS) == want["source"]
  one = Tokenizer(source.inner, target=True)
  for _ in range(2):
    assert one.encode_batch(TEXTS) == want["target"]
    assert source.encode_batch(TEXTS) == want["source"]
  for tokenizer in (source, target):
    empty, letter = tokenizer.encode_batch(["", "Apfel"])
    assert [*tokenizer.prefix, *tokenizer.suffix] == empty
    last = len(letter) - len(tokenizer.suffix)
    assert tuple(letter[: len(tokenizer.prefix)]) == tokenizer.prefix
    assert tuple(letter[last:]) == tokenizer.suffix
    ids = tokenizer.encode_batch(TEXTS)
    assert max(map(max, ids)) < tokenizer.vocab_size
  assert [target.decode(each) for each in target.encode_batch(GERMAN)] == GERMAN
  ids = source.encode_batch(ENGLISH)
  assert [source.decode(each) for each in ids] == ENGLISH
  # As a run keeps it and a process that tokenises gets it.
  target.save(str(tmp_path))
  again = load_tokenizer(str(tmp_path), target=True)
  sent = pickle.loads(pickle.dumps(target))
  for other in (again, sent):
    assert other.encode_batch(TEXTS) == want["target"]
    assert other.fingerprint == target.fingerprint
  assert load_tokenizer(str(tmp_path)).encode_batch(TEXTS) == want["source"]
  assert again.saved == load_tokenizer(str(tmp_path)).saved == source.saved
  assert source.vocabulary == target.vocabulary
  assert source.fingerprint != target.fingerprint


def test_what_stands_around_a_target(folders):
  around = {}
  for kind in LANGUAGES:
    _, target, _ = _load(folders, kind)
    strings = [target.token_strings(p) for p in (target.prefix, target.suffix)]
    code = target.language_id
    around[kind] = (*strings, code and target.token_strings([code])[0])
  assert around == {
    "marian": ([], ["</s>"], None),
    "mbart": ([], ["</s>", "de_DE"], "de_DE"),
    "mbart50": (["de_DE"], ["</s>"], "de_DE"),
    "nllb": (["deu_Latn"], ["</s>"], "deu_Latn"),
    "nllb-legacy": ([], ["</s>", "deu_Latn"], "deu_Latn"),
    "m2m100": (["__de__"], ["</s>"], "__de__"),
    "plbart": ([], ["</s>", "__python__"], "__python__"),
  }


@pytest.mark.parametrize(
  ("kind", "start", "inputs"),
  [
    ("marian", "<pad>", "<pad> X"),
    ("mbart", "de_DE", "de_DE X </s>"),
    ("mbart50", "</s>", "</s> de_DE X"),
    ("nllb", "</s>", "</s> deu_Latn X"),
    ("nllb-legacy", "</s>", "</s> X </s>"),
    ("m2m100", "</s>", "</s> __de__ X"),
  ],
)
def test_a_target_has_one_end(folders, kind, start, inputs, write_jsonl):
  source, target, theirs = _load(folders, kind)
  texts = [*GERMAN[:3], ""]
  path = write_jsonl(*({"source": "Apple", "target": t} for t in texts))
  tokens = Tokens(
    theirs.convert_tokens_to_ids(start), theirs.eos_token_id, 1, 1
  )

  def pairs(longest):
    return encode_pairs(
      sources.open_source(f"jsonl:{path}", fields=("source", "target")),
      Encoding("source", "target", source, target, tokens, 32, longest),
    )

  whole = pairs(99)
  want = theirs(text_target=texts)["input_ids"]
  assert [whole[i].target.tolist() for i in range(4)] == want
  assert whole.counts.truncated_targets == 0
  assert whole.counts.empty_targets == 1
  batch = collate(
    [*map(whole.__getitem__, range(4))], shape=(9, 99), tokens=tokens
  )
  own = len(target.prefix) + len(target.suffix)
  for row, ids in enumerate(want):
    size = len(ids)
    text = theirs.convert_ids_to_tokens(ids[len(target.prefix) :][: size - own])
    x = itertools.chain(*(text if p == "X" else [p] for p in inputs.split()))
    got = batch["decoder_inputs"][row, :size].tolist()
    assert theirs.convert_ids_to_tokens(got) == list(x)
    assert batch["decoder_targets"][row, :size].tolist() == ids
    assert batch["decoder_weights"][row].sum() == size
  # Truncated: no end token and nothing that stands after it.
  longest = len(want[0]) - 1
  cut = pairs(longest)
  kept = longest - (len(target.suffix) - 1)
  assert cut[0].target.tolist() == want[0][:kept]
  assert cut[0].truncated_target and cut.counts.truncated_targets > 0
  assert cut.counts.empty_targets == 1


@pytest.mark.parametrize("kind", ["marian", "mbart50"])
def test_word_starts_are_those_of_targets(folders, kind):
  _, target, theirs = _load(folders, kind)
  starts = target.word_starts()
  for piece, index in theirs.get_vocab().items():
    if len(piece) > 1 and piece.startswith("\N{LOWER ONE EIGHTH BLOCK}"):
      assert starts[index], piece
  for piece in ("e", "r"):
    assert not starts[target.token_id(piece)]


def test_each_of_marians_vocabularies_reads_its_side(tmp_path):
  folder = translators.save("marian", tmp_path / "two", separate_vocabs=True)
  source = load_tokenizer(folder)
  target = load_tokenizer(folder, target=True)
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  ids = theirs(ENGLISH[:9])["input_ids"]
  assert source.encode_batch(ENGLISH[:9]) == ids
  assert [source.decode(each) for each in ids] == ENGLISH[:9]
  assert source.token_strings(ids[0])[0] == "\N{LOWER ONE EIGHTH BLOCK}Apple"
  labels = theirs(text_target=GERMAN[:9])["input_ids"]
  assert target.encode_batch(GERMAN[:9]) == labels
  assert [target.decode(each) for each in labels] == GERMAN[:9]
  sizes = (len(theirs.encoder), len(theirs.target_encoder))
  assert (source.vocab_size, target.vocab_size) == sizes
  assert target.token_id("</s>") == 0
  # Nothing that sides could share.
  assert source.vocabulary != target.vocabulary


def test_a_fingerprint_is_of_both_models_and_of_the_languages(
  folders, tmp_path
):
  other = translators.save("marian", tmp_path / "marian")
  translators.spm(tmp_path / "marian/target.spm", [*GERMAN, *GERMAN[:5] * 9])
  for target in (True, False):
    one = load_tokenizer(folders["marian"], target=target)
    two = load_tokenizer(other, target=target)
    assert one.inner.get_vocab() == two.inner.get_vocab()
    assert one.fingerprint != two.fingerprint
  for kind in OF_LANGUAGES:
    digests = {
      load_tokenizer(
        folders[kind], target=True, target_language=language
      ).fingerprint
      for language in LANGUAGES[kind]
    }
    assert len(digests) == 3
    digests = {
      load_tokenizer(folders[kind], source_language=language).fingerprint
      for language in LANGUAGES[kind]
    }
    assert len(digests) == 3


def test_sets_of_tokenizers_of_one_mode_are_found_again(make_encoding):
  """Their facts are what they have always been."""
  encoding = make_encoding()
  assert set(encoding.facts) == {
    "source_field",
    "target_field",
    "source_tokenizer",
    "target_tokenizer",
    "tokens",
    "max_source_length",
    "max_target_length",
    "on_bad_record",
  }
  for side in ("source_tokenizer", "target_tokenizer"):
    tokenizer = getattr(encoding, side)
    parts = [
      tokenizer.inner.backend_tokenizer.to_str(),
      sorted(tokenizer.inner.get_vocab().items()),
      tokenizer.prefix,
      tokenizer.suffix,
    ]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    assert encoding.facts[side] == digest
    for other in (tokenizer.vocabulary, tokenizer.saved):
      assert other == digest


def test_a_set_of_another_language_is_another(folders, write_jsonl, tmp_path):
  records = [
    {"source": e, "target": g} for e, g in zip(ENGLISH, GERMAN, strict=True)
  ]
  path = write_jsonl(*records)
  source = sources.open_source(f"jsonl:{path}", fields=("source", "target"))
  keys, targets = set(), []
  for language in ("de_DE", "fr_XX"):
    one = load_tokenizer(folders["mbart50"], source_language="en_XX")
    other = load_tokenizer(
      folders["mbart50"], target=True, target_language=language
    )
    encoding = Encoding(
      "source", "target", one, other, Tokens(2, 2, 1, 1), 40, 40
    )
    keys.add(key(facts(source, encoding)))
    pairs = prepare_set(source, encoding, tmp_path / "store", workers=1)
    targets.append(pairs[0].target.tolist())
    assert targets[-1] == other.encode_batch([GERMAN[0]])[0]
  assert len(keys) == 2 and targets[0] != targets[1]


def test_a_language_that_there_is_not_is_refused(folders, wordpiece, tmp_path):
  wordpiece.save(str(tmp_path))
  for key_, side in (("source_language", False), ("target_language", True)):
    for name in (str(tmp_path), folders["marian"]):
      with pytest.raises(ValueError, match=rf"data\.{key_} = 'de_DE': .*'' *"):
        load_tokenizer(name, target=side, **{key_: "de_DE"})
    with pytest.raises(
      ValueError, match=rf"data\.{key_} = 'de' is no language .*de_DE"
    ):
      load_tokenizer(folders["mbart"], target=side, **{key_: "de"})


def test_a_missing_target_language_is_said(folders, caplog):
  """mBART then takes the source's, M2M has no target mode at all."""
  with caplog.at_level("WARNING", logger="absl"):
    target = load_tokenizer(
      folders["mbart"], target=True, source_language="de_DE"
    )
  assert "data.target_language is empty" in caplog.text
  assert "de_DE" in caplog.text
  assert target.token_strings(target.suffix) == ["</s>", "de_DE"]
  with pytest.raises(ValueError, match=r"data\.target_language is empty.*set"):
    load_tokenizer(folders["m2m100"], target=True)
  assert load_tokenizer(folders["m2m100"]).saved
