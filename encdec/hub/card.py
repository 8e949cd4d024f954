"""The model card of a saved folder."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from transformers import EncoderDecoderConfig

from encdec.hub.configs import sides_of
from encdec.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True)
class Card:
  """What a reader of the folder should know beyond its config.

  Attributes:
    base_models: Hub ids that the sides were initialised from.
    datasets: what the model was trained on.
    metrics: name to value, measured by generation or as a loss.
    notes: Markdown, after the facts.
  """

  title: str = ""
  base_models: Sequence[str] = ()
  datasets: Sequence[str] = ()
  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
  notes: str = ""


# Whoever edits a card takes this line out, and keeps it.
MARK = (
  "<!-- Written by encdec, and again at the next save: remove this line -->"
)


def render(
  card: Card, config: EncoderDecoderConfig, tokens: SpecialTokens | None
) -> str:
  """README.md with the Hub's front matter."""
  kinds = " to ".join(side.model_type for side in sides_of(config))
  # JSON strings are YAML strings: nothing in a name can end one.
  front = ["library_name: transformers", "pipeline_tag: text2text-generation"]
  if card.base_models:
    front.append("base_model:")
    front += [f"- {json.dumps(name)}" for name in card.base_models]
  front += ["tags:", "- encoder-decoder", "- jax"]
  lines = ["---", *front, "---", "", MARK, f"# {card.title or kinds}", ""]
  lines += [
    f"An encoder-decoder of the kind {kinds}, trained with encdec.",
    "",
    "```python",
    "from transformers import EncoderDecoderModel  # PyTorch",
    "from encdec import FlaxEncoderDecoderModel  # JAX",
    "",
    "model = EncoderDecoderModel.from_pretrained(folder)",
    "model = FlaxEncoderDecoderModel.from_pretrained(folder)",
    "```",
  ]
  if card.datasets:
    lines += ["", "## Data", "", *(f"- `{name}`" for name in card.datasets)]
  if card.metrics:
    lines += ["", "## Results", "", "| metric | value |", "|---|---|"]
    lines += [
      f"| {name} | {value:.4g} |" for name, value in card.metrics.items()
    ]
  if tokens is not None:
    lines += ["", "## Special tokens", "", "```", tokens.table(), "```"]
  if card.notes:
    lines += ["", card.notes]
  return "\n".join(lines) + "\n"
