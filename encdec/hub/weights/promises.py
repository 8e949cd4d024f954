"""What the `architectures` of a config.json promise of its weights."""

import re
from collections.abc import Iterable

# Classes of transformers with a language-model head. ELECTRA's ForPreTraining
# is the discriminator, which has none.
_WITH_HEAD = re.compile(
  r"LMHead|DoubleHeads|ForMaskedLM|ForCausalLM|ForConditionalGeneration"
  r"|MTModel|GenerationDecoder|(?<!Electra)ForPreTraining"
)


def names_of(architectures: object) -> tuple[str, ...]:
  """The classes that a config names; none where it names nothing."""
  if not isinstance(architectures, list | tuple):
    return ()
  return tuple(name for name in architectures if isinstance(name, str))


def promise_head(architectures: Iterable[str]) -> bool:
  """Whether a file of one of these classes holds a language-model head."""
  return any(_WITH_HEAD.search(name) for name in architectures)
