"""Tokenizers: trained ones load again as what they are; bad ones are named."""

import json
import pathlib

import pytest
import tokenizers as hf_tokenizers
import transformers

from data import tokenizers

from .conftest import TEXTS


@pytest.fixture(scope="session")
def roberta() -> tokenizers.Tokenizer:
  return tokenizers.train_bpe(TEXTS, 300, family="roberta")


@pytest.fixture(scope="session")
def metaspace() -> tokenizers.Tokenizer:
  """As of SentencePiece: a piece that begins a word begins with a mark."""
  backend = hf_tokenizers.Tokenizer(hf_tokenizers.models.Unigram())
  backend.pre_tokenizer = hf_tokenizers.pre_tokenizers.Metaspace()
  backend.decoder = hf_tokenizers.decoders.Metaspace()
  trainer = hf_tokenizers.trainers.UnigramTrainer(
    vocab_size=60,
    special_tokens=["<unk>", "</s>"],
    unk_token="<unk>",
    show_progress=False,
  )
  backend.train_from_iterator(TEXTS, trainer)
  inner = transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, eos_token="</s>", unk_token="<unk>"
  )
  return tokenizers.Tokenizer(inner)


@pytest.mark.parametrize(
  ("name", "cls", "around"),
  [
    ("wordpiece", transformers.BertTokenizer, ("[CLS]", "[SEP]")),
    ("bpe", transformers.GPT2Tokenizer, None),
    ("roberta", transformers.RobertaTokenizer, ("<s>", "</s>")),
  ],
)
def test_saved_tokenizer_loads_as_its_class(
  request, tmp_path, name, cls, around
):
  trained = request.getfixturevalue(name)
  trained.save(str(tmp_path))
  inner = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
  assert type(inner) is cls and inner.is_fast
  loaded = tokenizers.load(str(tmp_path))
  texts = [*TEXTS[:9], "unseen Ünïcode \t words", "", "x" * 50]
  assert loaded.encode_batch(texts) == trained.encode_batch(texts)
  assert inner(texts)["input_ids"] == trained.encode_batch(texts)
  assert loaded.fingerprint == trained.fingerprint
  assert loaded.vocab_size == trained.vocab_size
  if around:
    want = tuple(trained.token_id(token) for token in around)
    assert trained.prefix + trained.suffix == want
  else:
    assert trained.prefix == trained.suffix == ()
  assert (tmp_path / "tokenizer.json").exists()
  assert (tmp_path / "tokenizer_config.json").exists()


def test_special_tokens(wordpiece, bpe, roberta):
  assert wordpiece.cls_id == wordpiece.token_id("[CLS]") == 2
  assert wordpiece.sep_id == wordpiece.token_id("[SEP]") == 3
  assert wordpiece.pad_id == 0
  assert wordpiece.bos_id is None and wordpiece.eos_id is None
  assert bpe.bos_id == bpe.eos_id == bpe.token_id("<|endoftext|>") == 0
  assert bpe.pad_id is None and bpe.cls_id is None
  ids = (roberta.bos_id, roberta.pad_id, roberta.eos_id)
  assert ids == (0, 1, 2)
  assert bpe.token_id("no such token") is None


def test_bpe_gives_every_text_back(bpe, roberta):
  texts = ["Any: text\n\twith ünïcode 日本 and  spaces ", "", " x"]
  for tokenizer in (bpe, roberta):
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
      assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", ["wordpiece", "bpe", "roberta", "metaspace"])
def test_pieces_of_a_word_begin_with_its_start(name, request):
  tokenizer = request.getfixturevalue(name)
  starts = tokenizer.word_starts()
  assert starts.shape == (tokenizer.vocab_size,)
  text = "apple apples boat appleboat is very"
  ids = tokenizer.encode_batch([text])[0]
  ids = ids[len(tokenizer.prefix) : len(ids) - len(tokenizer.suffix)]
  words = []
  for index, token in enumerate(ids):
    if index == 0 or starts[token]:
      words.append([])
    words[-1].append(token)
  # No space precedes a text's first word.
  assert not starts[ids[0]] or name in ("wordpiece", "metaspace")
  assert max(map(len, words)) > 1
  assert [tokenizer.decode(word).strip() for word in words] == text.split()


def test_encoding_never_truncates(wordpiece):
  text = "apple " * 5000
  assert len(wordpiece.encode_batch([text])[0]) >= 5002
  assert wordpiece.encode_batch([]) == []


def test_sizes(wordpiece, bpe):
  assert wordpiece.vocab_size <= 200 and bpe.vocab_size <= 300
  assert bpe.vocab_size > 257
  # A corpus with more letters than the vocabulary has room for.
  letters = ["".join(map(chr, range(0x4E00, 0x4E00 + 300)))]
  with pytest.raises(ValueError, match=r"vocabulary of 100 .*raise"):
    tokenizers.train_wordpiece(letters, 100)
  with pytest.raises(ValueError, match=r"vocabulary of 200 .*raise"):
    tokenizers.train_bpe(TEXTS, 200)
  with pytest.raises(ValueError, match="family 't5'"):
    tokenizers.train_bpe(TEXTS, 300, family="t5")


def test_training_is_deterministic_and_of_its_texts(wordpiece, bpe):
  again = tokenizers.train_wordpiece(iter(TEXTS), 200)
  assert again.fingerprint == wordpiece.fingerprint
  # Equal frequencies are what a hash table's order would decide.
  words = [f"{a}{b}{c}" for a in "abcd" for b in "efgh" for c in "ijkl"]
  prints = {tokenizers.train_wordpiece(words, 90).fingerprint for _ in range(5)}
  assert len(prints) == 1
  assert tokenizers.train_bpe(iter(TEXTS), 300).fingerprint == bpe.fingerprint
  other = tokenizers.train_bpe(TEXTS[::2] + ["zebra zoo"] * 50, 300)
  assert other.fingerprint != bpe.fingerprint


def test_what_cannot_be_loaded_is_named(tmp_path):
  folders = {
    "none": {},
    "bert": {"config.json": '{"model_type": "bert"}'},
    "gpt2": {"config.json": '{"model_type": "gpt2"}'},
    "broken": {"tokenizer.json": "{nothing"},
    "half": {
      "tokenizer.json": "{}",
      "tokenizer_config.json": '{"tokenizer_class": "BertTokenizer"}',
    },
  }
  for name, files in folders.items():
    (tmp_path / name).mkdir()
    for file, text in files.items():
      (tmp_path / name / file).write_text(text)
  for name in ("no-such-owner/no-such-model", str(tmp_path / "absent")):
    with pytest.raises(ValueError, match="neither a folder") as error:
      tokenizers.load(name)
    assert name in str(error.value)
  for name in folders:
    with pytest.raises(ValueError, match="tokenizer") as error:
      tokenizers.load(str(tmp_path / name))
    assert str(tmp_path / name) in str(error.value)


def test_code_in_a_folder_is_never_run(wordpiece, tmp_path):
  wordpiece.save(str(tmp_path))
  path = pathlib.Path(tmp_path, "tokenizer_config.json")
  config = json.loads(path.read_text())
  config["tokenizer_class"] = "Evil"
  config["auto_map"] = {"AutoTokenizer": ["evil.Evil", None]}
  path.write_text(json.dumps(config))
  marker = tmp_path / "ran"
  (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nEvil = 1\n")
  with pytest.raises(ValueError, match=r"trust_remote_code|neither"):
    tokenizers.load(str(tmp_path))
  assert not marker.exists()
