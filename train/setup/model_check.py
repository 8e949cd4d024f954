"""What a configuration's values and the model's shape tell together."""

from collections.abc import Mapping

from encdec.config import EncDecConfig
from encdec.special_tokens import SpecialTokens
from train.config import Config
from train.errors import Refusal
from train.generation_settings import GenerationSettings


def check(
  config: Config,
  model: EncDecConfig,
  vocab_sizes: Mapping[str, int],
  tokens: SpecialTokens,
  settings: GenerationSettings,
) -> None:
  """Refuses what does not fit the model's tables.

  Args:
    vocab_sizes: of the tokenizers, by side.
    tokens: of the target.
    settings: of generation.

  Raises:
    Refusal: a length, a number of beams or a token is beyond a table's rows.
  """
  lengths = [
    ("data.max_source_length", config.data.max_source_length, model.encoder),
    ("data.max_target_length", config.data.max_target_length, model.decoder),
    ("generation.max_length", settings.max_length, model.decoder),
  ]
  for key, length, stack in lengths:
    if length > stack.max_positions:
      raise Refusal(
        f"{key} = {length}: the position table of the {stack.role} "
        f"({stack.name}) has {stack.max_positions} rows; lower it, or raise "
        f"model.{stack.role}_positions"
      )
  beams = settings.options["num_beams"]
  if beams > model.decoder.vocab_size:
    raise Refusal(
      f"generation.num_beams = {beams} exceeds the decoder's vocabulary of "
      f"{model.decoder.vocab_size}: lower it"
    )
  for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
    if vocab_sizes[side] > stack.vocab_size:
      kind = "source" if side == "encoder" else "target"
      raise Refusal(
        f"data.{kind}_tokenizer has {vocab_sizes[side]} tokens, the {side} "
        f"({stack.name}) {stack.vocab_size}: choose the model's own tokenizer, "
        "or set model.grow_vocabulary=True, which gives the new tokens rows"
      )
  rows = model.decoder.vocab_size
  roles = {"start": [tokens.start], "end": tokens.end, "pad": [tokens.pad]}
  for role, ids in roles.items():
    for token in ids:
      if token is not None and token >= rows:
        raise Refusal(
          f"the {role} token has the id {token}, the decoder "
          f"({model.decoder.name}) {rows} rows: set model.{role}_token to one "
          "of the target tokenizer's tokens"
        )
