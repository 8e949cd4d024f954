"""Tokenizers: trained ones load again as what they are; bad ones are named."""

import json
import pathlib
import pickle

import pytest
import tokenizers as hf_tokenizers
import transformers

from data.tokenizers import training
from data.tokenizers.tokenizer import Tokenizer, load_tokenizer

from ..conftest import TEXTS


@pytest.fixture(scope="session")
def roberta() -> Tokenizer:
  return training.train_bpe(TEXTS, 300, family="roberta")


@pytest.fixture(scope="session")
def metaspace() -> Tokenizer:
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
  return Tokenizer(inner)


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
  loaded = load_tokenizer(str(tmp_path))
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


# What the models of the Hub are: special pieces, their file, its type.
SENTENCEPIECE = {
  "albert": (
    {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1,
     "control_symbols": "[CLS],[SEP],[MASK]"},
    "spiece.model",
    ("[CLS]", "[SEP]"),
  ),
  "xlm-roberta": ({}, "sentencepiece.bpe.model", ("<s>", "</s>")),
  "bert-generation": (
    {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}, "spiece.model", (),
  ),
  "pegasus": (
    {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "spiece.model",
    ("</s>",),
  ),
}  # fmt: skip


def sentencepiece_folder(folder, kind: str, texts=TEXTS) -> str:
  """A folder that has a sentencepiece model and a config alone."""
  special, name, _ = SENTENCEPIECE[kind]
  # Mapped only here: the library is slow to import.
  import sentencepiece

  folder.mkdir()
  with open(folder / name, "wb") as model:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts),
      model_writer=model,
      vocab_size=70,
      hard_vocab_limit=False,
      minloglevel=3,
      num_threads=1,
      **special,
    )
  (folder / "config.json").write_text(json.dumps({"model_type": kind}))
  return str(folder)


@pytest.mark.parametrize("kind", SENTENCEPIECE)
def test_a_sentencepiece_model_is_read(kind, tmp_path):
  folder = sentencepiece_folder(tmp_path / "hub", kind)
  loaded = load_tokenizer(folder)
  ids = loaded.encode_batch(TEXTS[:9])
  assert [loaded.decode(one) for one in ids] == [
    text.lower() if kind == "albert" else text for text in TEXTS[:9]
  ]
  around = SENTENCEPIECE[kind][2]
  want = tuple(loaded.token_id(token) for token in around)
  assert loaded.prefix + loaded.suffix == want and None not in want
  assert loaded.pad_id is not None and loaded.vocab_size > 30
  assert len(ids[0]) > len(want) + 2
  # As a run keeps it, and an export hands it on.
  loaded.save(str(tmp_path / "run"))
  again = load_tokenizer(str(tmp_path / "run"))
  assert again.encode_batch(TEXTS[:9]) == ids
  assert again.fingerprint == loaded.fingerprint
  assert (again.pad_id, again.eos_id) == (loaded.pad_id, loaded.eos_id)
  assert pickle.loads(pickle.dumps(again)).encode_batch(TEXTS[:9]) == ids
  starts = loaded.word_starts()
  pieces = loaded.inner.convert_ids_to_tokens(range(loaded.vocab_size))
  assert 3 < starts.sum() < loaded.vocab_size
  for piece, start in zip(pieces, starts, strict=True):
    if len(piece) > 1 and piece.startswith("\N{LOWER ONE EIGHTH BLOCK}"):
      assert start, piece


def test_other_scores_are_another_sentencepiece_model(tmp_path):
  """Of the same pieces, which a fingerprint must not stop at."""
  one = sentencepiece_folder(tmp_path / "one", "bert-generation")
  two = sentencepiece_folder(
    tmp_path / "two", "bert-generation", [*TEXTS, *TEXTS[:5] * 9]
  )
  first, second = load_tokenizer(one), load_tokenizer(two)
  assert first.fingerprint != second.fingerprint


def test_a_sentencepiece_model_of_another_class_is_refused(tmp_path):
  folder = tmp_path / "hub"
  sentencepiece_folder(folder, "pegasus")
  (folder / "config.json").write_text('{"model_type": "albert"}')
  with pytest.raises(ValueError, match="neither a folder with a tokenizer"):
    load_tokenizer(str(folder))


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
      load_tokenizer(name)
    assert name in str(error.value)
  for name in folders:
    with pytest.raises(ValueError, match="tokenizer") as error:
      load_tokenizer(str(tmp_path / name))
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
    load_tokenizer(str(tmp_path))
  assert not marker.exists()


# Of the models that have no token for what they do not know.
@pytest.mark.parametrize("kind", ["bpe", "words", "unigram", "wordpiece"])
def test_a_vocabulary_need_not_hold_the_letter_a(kind, tmp_path):
  tokens = ["</s>", "+", "C", "G", "T", "CG", "##T", "[UNK]"]
  vocab = {token: i for i, token in enumerate(tokens)}
  models = hf_tokenizers.models
  backend = hf_tokenizers.Tokenizer(
    {
      "bpe": lambda: models.BPE(vocab, [("C", "G")]),
      "words": lambda: models.WordLevel(vocab),
      "unigram": lambda: models.Unigram([(token, -1.0) for token in tokens]),
      "wordpiece": lambda: models.WordPiece(vocab, unk_token="[UNK]"),
    }[kind]()
  )
  backend.pre_tokenizer = hf_tokenizers.pre_tokenizers.Whitespace()
  backend.post_processor = hf_tokenizers.processors.TemplateProcessing(
    single="$A </s>", special_tokens=[("</s>", 0)]
  )
  names = {"eos_token": "</s>"}
  if kind == "wordpiece":
    backend.decoder = hf_tokenizers.decoders.WordPiece()
    names["unk_token"] = "[UNK]"
  inner = transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, **names
  )
  inner.save_pretrained(str(tmp_path))
  loaded = load_tokenizer(str(tmp_path))
  assert (loaded.prefix, loaded.suffix) == ((), (0,))
  assert loaded.encode_batch(["CG T"]) == [[5, 4, 0]]
  starts = loaded.word_starts()
  assert starts[vocab["CG"]]
  assert starts[vocab["##T"]] == (kind != "wordpiece")
  if kind in ("words", "unigram"):
    with pytest.raises(ValueError, match=r"cannot read a text.*fix the text"):
      loaded.encode_batch(["CG A"])


def test_a_vocabulary_that_stands_for_no_text_is_refused():
  vocab = {"</s>": 0, "[A]": 1}
  backend = hf_tokenizers.Tokenizer(hf_tokenizers.models.BPE(vocab, []))
  inner = transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, eos_token="</s>"
  )
  with pytest.raises(ValueError, match="none of its tokens comes back"):
    Tokenizer(inner)
