"""Round trips: what tokenizers keep of a text, and how it is said."""

import pytest
import tokenizers as hf
import transformers

from data.tokenizers import round_trip, training
from data.tokenizers.round_trip import compare, describe, measure
from data.tokenizers.tokenizer import Tokenizer, load_tokenizer

TEXTS = ["Ana.Müller@mail.org", "a plain text", "São Paulo, Brazil"]


@pytest.mark.parametrize(
  ("text", "back", "kind"),
  [
    ("a b", "a b", "unchanged"),
    # As exact match has it.
    (" a b\n", "a b", "unchanged"),
    ("a  b", "a b", "spaces"),
    ("a.b", "a . b", "spaces"),
    ("Ab. C", "ab . c", "case"),
    ("Müller", "muller", "case"),
    ("STRASSE", "straße", "case"),
    ("a★b", "ab", "characters"),
    ("a", "", "characters"),
    # A sentencepiece model writes one letter for the other.
    ("\N{FULLWIDTH LATIN CAPITAL LETTER A}", "A", "characters"),
    ("", "", "unchanged"),
  ],
)
def test_a_change_has_a_kind(text, back, kind):
  assert compare(text, back) == kind


def trips(tokenizer, texts=TEXTS):
  ids = tokenizer.encode_batch(texts)
  return measure(zip(texts, map(tokenizer.decode, ids), strict=True))


def test_tokenizers_differ_in_what_they_keep():
  uncased = trips(training.train_wordpiece(TEXTS, 300))
  assert uncased.counts == {
    "unchanged": 1, "spaces": 0, "case": 2, "characters": 0,
  }  # fmt: skip
  cased = trips(training.train_wordpiece(TEXTS, 300, keep_case=True))
  assert cased.counts["spaces"] == 1 and cased.share("unchanged") == 2 / 3
  bytes_ = trips(training.train_bpe(TEXTS, 300))
  assert bytes_.share("unchanged") == 1.0 and bytes_.example is None
  # Characters that it has never seen become [UNK], which is no text.
  unknown = trips(training.train_wordpiece(["abc"], 300), ["ab★c"])
  assert unknown.counts["characters"] == 1


def test_a_cased_tokenizer_is_the_same_when_it_is_read_again(tmp_path):
  made = training.train_wordpiece(TEXTS, 300, keep_case=True)
  made.save(str(tmp_path))
  read = load_tokenizer(str(tmp_path))
  assert read.fingerprint == made.fingerprint
  assert read.encode_batch(TEXTS) == made.encode_batch(TEXTS)
  other = training.train_wordpiece(TEXTS, 300)
  assert other.fingerprint != made.fingerprint
  # Text by text what transformers' own does with this vocabulary.
  vocab = made.inner.get_vocab()
  theirs = transformers.BertTokenizer(vocab=vocab, do_lower_case=False)
  assert theirs(TEXTS).input_ids == made.encode_batch(TEXTS)


def test_spaces_of_a_sentencepiece_are_spaces_alone():
  backend = hf.Tokenizer(hf.models.BPE())
  backend.normalizer = hf.normalizers.Replace(hf.Regex(" +"), " ")
  backend.pre_tokenizer = hf.pre_tokenizers.Metaspace()
  backend.decoder = hf.decoders.Metaspace()
  backend.train_from_iterator(["a b  c", "Ana"], hf.trainers.BpeTrainer())
  inner = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
  found = trips(Tokenizer(inner), ["a  b", "Ana ", "a b"])
  assert (found.counts["unchanged"], found.counts["spaces"]) == (2, 1)


def test_the_sentence_has_shares_and_a_bounded_example():
  found = measure(
    [("A" * 500 + "B" * 500, "A" * 500 + "b" * 500), ("a b", "ab")]
  )
  said = describe(found)
  assert said.startswith("0.0% of 2 targets come back unchanged")
  assert "50.0% differ in spaces alone, 50.0% lose capitals" in said
  shown = "A" * 20 + "B" * 40
  assert f"; ...'{shown}'... becomes ...'{shown.replace('B', 'b')}'..." in said
  assert describe(measure([("a", "a")])).endswith("from the target tokenizer")
  assert round_trip.measure([]).share("unchanged") == 0.0
