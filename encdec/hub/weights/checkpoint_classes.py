"""Class names in a config's `architectures`, and which have an LM head."""

import re
from collections.abc import Iterable

# Classes of transformers with a language-model head. ELECTRA's ForPreTraining
# is the discriminator, which has none.
_WITH_HEAD = re.compile(
  r"LMHead|DoubleHeads|ForMaskedLM|ForCausalLM|ForConditionalGeneration"
  r"|MTModel|GenerationDecoder|(?<!Electra)ForPreTraining"
)


def class_names(architectures: object) -> tuple[str, ...]:
  """The classes that a config names; none where it names nothing."""
  if not isinstance(architectures, list | tuple):
    return ()
  return tuple(name for name in architectures if isinstance(name, str))


def has_lm_head(architectures: Iterable[str]) -> bool:
  """Whether a file of one of these classes should hold an LM head."""
  return any(_WITH_HEAD.search(name) for name in architectures)
