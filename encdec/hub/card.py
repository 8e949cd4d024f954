"""Writes the model card, README.md, of a saved folder."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from transformers import EncoderDecoderConfig

from encdec.hub.configs import sides_of
from encdec.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True)
class Card:
  """The facts of a model card that the config does not hold.

  Attributes:
    base_models: Hub ids that the sides were initialised from.
    datasets: what the model was trained on.
    recipe: setting to value, as the model was trained with.
    metrics: name to value, measured by generation or as a loss.
    notes: Markdown, after the facts.
  """

  title: str = ""
  base_models: Sequence[str] = ()
  datasets: Sequence[str] = ()
  recipe: Mapping[str, object] = dataclasses.field(default_factory=dict)
  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
  notes: str = ""


# Who edits a card removes this line; the next save then does not touch it.
MARK = (
  "<!-- Written by encdec, and again at the next save: remove this line -->"
)


_MODELS = """
```python
from transformers import EncoderDecoderModel  # PyTorch
from encdec import FlaxEncoderDecoderModel  # JAX

folder = "."  # or this repository's id on the Hub
model = EncoderDecoderModel.from_pretrained(folder)
model = FlaxEncoderDecoderModel.from_pretrained(folder)
```
"""
_USAGE = """
In PyTorch:

```python
from transformers import AutoTokenizer, EncoderDecoderModel

folder = "."  # or this repository's id on the Hub
model = EncoderDecoderModel.from_pretrained(folder)
{tokenizers}
batch = source_tokenizer(["A text."], return_tensors="pt")
tokens = model.generate(
  input_ids=batch.input_ids, attention_mask=batch.attention_mask
)
{decode}
```

In JAX:

```python
from encdec import FlaxEncoderDecoderModel
from transformers import AutoTokenizer

folder = "."  # or this repository's id on the Hub
model = FlaxEncoderDecoderModel.from_pretrained(folder)
{tokenizers}
batch = source_tokenizer(["A text."], return_tensors="np")
tokens = model.generate(
  batch.input_ids, attention_mask=batch.attention_mask
).sequences.tolist()
{decode}
```
"""


def render(
  card: Card,
  config: EncoderDecoderConfig,
  tokens: SpecialTokens | None,
  *,
  tokenizer: bool = False,
  target_tokenizer: bool = False,
  target_model: bool = False,
) -> str:
  """README.md with the Hub's front matter.

  Args:
    tokenizer, target_tokenizer: whether the folder holds the source's, and one
      for the target in target_tokenizer/.
    target_model: whether the target's tokenizer has a sentencepiece model for
      targets, as Marian's, which `decode` takes only when it is told to.
  """
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
    "## Usage",
    (_usage(target_tokenizer, target_model) if tokenizer else _MODELS).rstrip(),
  ]
  if card.datasets:
    lines += ["", "## Data", "", *(f"- `{name}`" for name in card.datasets)]
  metrics = {name: f"{value:.4g}" for name, value in card.metrics.items()}
  for title, key, rows in (
    ("Recipe", "setting", card.recipe),
    ("Results", "metric", metrics),
  ):
    if rows:
      lines += ["", f"## {title}", "", f"| {key} | value |", "|---|---|"]
      lines += [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
  if tokens is not None:
    lines += ["", "## Special tokens", "", "```", tokens.table(), "```"]
  if card.notes:
    lines += ["", card.notes]
  return "\n".join(lines) + "\n"


def _usage(target: bool, target_model: bool) -> str:
  lines = ["source_tokenizer = AutoTokenizer.from_pretrained(folder)"]
  if target:
    lines += [
      "target_tokenizer = AutoTokenizer.from_pretrained(",
      '  folder, subfolder="target_tokenizer"',
      ")",
    ]
  else:
    lines.append("target_tokenizer = source_tokenizer")
  texts = "target_tokenizer.batch_decode("
  decode = f"print({texts}tokens, skip_special_tokens=True))"
  if target_model:
    decode = (
      f"texts = {texts}\n"
      "  tokens, skip_special_tokens=True, use_source_tokenizer=False\n"
      ")\n"
      "print(texts)"
    )
  return _USAGE.format(tokenizers="\n".join(lines), decode=decode)


def _cell(value: object) -> str:
  """A value as a table's cell, which its text cannot end."""
  return " ".join(str(value).split()).replace("|", "\\|")
