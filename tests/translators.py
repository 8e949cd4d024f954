"""Small tokenizers that treat a target unlike a source, as the Hub's are."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import tokenizers
import transformers

ENGLISH = [
  f"{word} number {n} is {'very ' * (n % 5)}{word}"
  for n in range(40)
  for word in ("Apple", "boat", "cloud")
]
GERMAN = [
  f"{word} Nummer {n} ist {'sehr ' * (n % 5)}{word}"
  for n in range(40)
  for word in ("Apfel", "Schiff", "Wolke")
]
# Of each kind the codes of English, German and French.
LANGUAGES = {
  "marian": ("", "", ""),
  "mbart": ("en_XX", "de_DE", "fr_XX"),
  "mbart50": ("en_XX", "de_DE", "fr_XX"),
  "nllb": ("eng_Latn", "deu_Latn", "fra_Latn"),
  "nllb-legacy": ("eng_Latn", "deu_Latn", "fra_Latn"),
  "m2m100": ("en", "de", "fr"),
  "plbart": ("java", "python", "en_XX"),
}
SIDES = ("source", "target")
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def save(kind: str, folder: pathlib.Path, **options: Any) -> str:
  """Saves a tokenizer of both languages' texts; gives its folder.

  Args:
    **options: of its class, such as `src_lang`.
  """
  folder.mkdir(parents=True)
  makers = {
    "marian": _marian,
    "mbart": _unigram,
    "mbart50": _unigram,
    "nllb": _nllb,
    "nllb-legacy": _nllb,
    "m2m100": _m2m100,
    "plbart": _plbart,
  }
  makers[kind](kind, folder, options).save_pretrained(str(folder))
  return str(folder)


def spm(path: pathlib.Path, texts: Sequence[str], **options: Any) -> Any:
  """Trains a sentencepiece model into a file; gives it."""
  # Mapped only here: the library is slow to import.
  import sentencepiece

  with open(path, "wb") as model:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts),
      model_writer=model,
      vocab_size=70,
      hard_vocab_limit=False,
      minloglevel=3,
      num_threads=1,
      **options,
    )
  return sentencepiece.SentencePieceProcessor(model_file=str(path))


def _pieces(model: Any) -> list[tuple[str, float]]:
  """The pieces, special ones aside, and their scores."""
  every = range(3, model.get_piece_size())
  return [(model.id_to_piece(i), model.get_score(i)) for i in every]


def _write_vocab(path: pathlib.Path, tokens: Sequence[str]) -> str:
  path.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
  return str(path)


def _marian(kind: str, folder: pathlib.Path, options: dict[str, Any]) -> Any:
  del kind
  models = []
  for side, texts in (("source", ENGLISH), ("target", GERMAN)):
    models.append([p for p, _ in _pieces(spm(folder / f"{side}.spm", texts))])
  files = {f"{side}_spm": f"{folder}/{side}.spm" for side in SIDES}
  if options.get("separate_vocabs"):
    for side, name in (("source", "vocab"), ("target", "target_vocab_file")):
      tokens = ["</s>", "<unk>", "<pad>", *models[SIDES.index(side)]]
      files[name] = _write_vocab(folder / f"{side}.json", tokens)
  else:
    tokens = list(dict.fromkeys(["</s>", "<unk>", *models[0], *models[1]]))
    files["vocab"] = _write_vocab(folder / "vocab.json", [*tokens, "<pad>"])
  return transformers.MarianTokenizer(**files, **options)


def _unigram(kind: str, folder: pathlib.Path, options: dict[str, Any]) -> Any:
  pieces = _pieces(spm(folder / "spm", [*ENGLISH, *GERMAN]))
  (folder / "spm").unlink()
  if kind == "mbart":
    vocab = [(token, 0.0) for token in _SPECIAL] + pieces
    return transformers.MBartTokenizer(vocab=vocab, **options)
  vocab = [(token, 0.0) for token in ("<unk>", "<s>", "</s>")] + pieces
  return transformers.MBart50Tokenizer(vocab=vocab, **options)


def _nllb(kind: str, folder: pathlib.Path, options: dict[str, Any]) -> Any:
  del folder
  backend = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
  backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=120, special_tokens=_SPECIAL, show_progress=False
  )
  backend.train_from_iterator([*ENGLISH, *GERMAN], trainer)
  model = json.loads(backend.to_str())["model"]
  merges: Any = [tuple(merge) for merge in model["merges"]]
  return transformers.NllbTokenizer(
    vocab=model["vocab"],
    merges=merges,
    legacy_behaviour=kind == "nllb-legacy",
    **options,
  )


def _m2m100(kind: str, folder: pathlib.Path, options: dict[str, Any]) -> Any:
  del kind
  path = folder / "sentencepiece.bpe.model"
  pieces = [piece for piece, _ in _pieces(spm(path, [*ENGLISH, *GERMAN]))]
  vocab = _write_vocab(folder / "vocab.json", [*_SPECIAL, *pieces])
  return transformers.M2M100Tokenizer(vocab, str(path), **options)


def _plbart(kind: str, folder: pathlib.Path, options: dict[str, Any]) -> Any:
  del kind
  path = folder / "sentencepiece.bpe.model"
  spm(path, [*ENGLISH, *GERMAN])
  return transformers.PLBartTokenizer(str(path), **options)
