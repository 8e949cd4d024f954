"""Checkpoints whose shapes are known without the Hub: by preset."""

from collections.abc import Sequence

from encdec.archs import ARCHS
from train import validate
from train.config import Config
from train.errors import Refusal
from train.setup.tokenizers import SIDES

# A Hub id without its owner: its preset, and its vocabulary where that is not
# the preset's.
_PRESETS: dict[str, tuple[str, int]] = {
  "albert-base-v2": ("albert:base", 0),
  "albert-large-v2": ("albert:large", 0),
  "bart-base": ("bart:base", 0),
  "bart-large": ("bart:large", 0),
  "bert-base-cased": ("bert:base", 28996),
  "bert-base-multilingual-cased": ("bert:base", 119547),
  "bert-base-uncased": ("bert:base", 0),
  "bert-large-cased": ("bert:large", 28996),
  "bert-large-uncased": ("bert:large", 0),
  "bert_for_seq_generation_L-24_bbc_encoder": ("bert-generation:large", 0),
  "camembert-base": ("camembert:base", 0),
  "distilbert-base-cased": ("distilbert:base", 28996),
  "distilbert-base-uncased": ("distilbert:base", 0),
  "electra-base-discriminator": ("electra:base", 0),
  "electra-large-discriminator": ("electra:large", 0),
  "electra-small-discriminator": ("electra:small", 0),
  "gpt2": ("gpt2:base", 0),
  "gpt2-large": ("gpt2:large", 0),
  "gpt2-medium": ("gpt2:medium", 0),
  "pegasus-large": ("pegasus:large", 0),
  "roberta-base": ("roberta:base", 0),
  "roberta-large": ("roberta:large", 0),
  "xlm-roberta-base": ("xlm-roberta:base", 0),
  "xlm-roberta-large": ("xlm-roberta:large", 0),
}
# Of whom a checkpoint by such a name has that shape; "": as old ids are.
_OWNERS = (
  "",
  "FacebookAI",
  "albert",
  "almanach",
  "distilbert",
  "facebook",
  "google",
  "google-bert",
  "openai-community",
)


def without_files(config: Config, shapes: Sequence[str] = ()) -> Config:
  """The configuration with presets in the place of checkpoints.

  What it says of shapes stays, and so does what training and generation do.
  Presets that it names itself keep `data.source_vocab_size` and
  `data.target_vocab_size`.

  Args:
    shapes: presets of the encoder and of the decoder; empty: those of known
      Hub ids.

  Raises:
    Refusal: a checkpoint whose shape is not known, or no such preset.
  """
  if shapes and len(shapes) != len(SIDES):
    raise Refusal(
      f"--shapes={','.join(shapes)}: give two presets, the encoder's and the "
      "decoder's, such as --shapes=bert:base,gpt2:base"
    )
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for number, (side, kind) in enumerate(SIDES.items()):
      name = config.model[side]
      if shapes:
        preset, vocab = shapes[number], 0
        arch, _, size = preset.partition(":")
        if arch not in ARCHS or size not in ARCHS[arch].PRESETS:
          raise Refusal(
            f"--shapes={','.join(shapes)}: {preset!r} is no preset; write one "
            f"such as bert:base, of {', '.join(ARCHS)}"
          )
      elif not name or not validate.is_preset(name):
        preset, vocab = _known(config, side)
      else:
        preset, vocab = name, config.data[f"{kind}_vocab_size"]
      arch, size = preset.split(":")
      config.model[side], config.model[f"{side}_init"] = preset, "random"
      config.data[f"{kind}_vocab_size"] = (
        vocab or ARCHS[arch].PRESETS[size]["vocab_size"]
      )
    # They have no tables to copy.
    config.model.decoder_embeddings_init = ""
    config.model.pair = ""
  return config


def _known(config: Config, side: str) -> tuple[str, int]:
  name = config.model[side]
  owner, _, model = name.rpartition("/")
  known = _PRESETS.get(model)
  if known is None or owner not in _OWNERS:
    key = "model.pair" if config.model.pair else f"model.{side}"
    raise Refusal(
      f"{key} = {config.model.pair or name!r}: the shape of this checkpoint is "
      "not known without its files; add --shapes=ENCODER,DECODER, two presets "
      "of its size such as --shapes=bert:base,gpt2:base"
    )
  return known
