"""The options of a search; values are arrays, the rest shapes the program.

A value that is None is off and leaves no trace in the compiled program; one
that is an array may change from call to call without compiling again.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

# A pure function of the row's length so far (`B N`), its tokens (`B N C`,
# of which the first `length` are written) and scores (`B N V`), to new scores.
Processor = Callable[
  [Int[Array, "B N"], Int[Array, "B N C"], Float[Array, "B N V"]],
  Float[Array, "B N V"],
]

EARLY_STOPPING = ("false", "true", "never")
SCORINGS = ("pytorch", "gnmt")


def static(default: Any) -> Any:
  """A field that shapes the program."""
  return struct.field(pytree_node=False, default=default)


@struct.dataclass
class SequenceBias:
  """Amounts added to the scores of tokens that would complete a sequence.

  `single` is added always. Each of `longer` holds sequences of one length:
  all but their last token, that last token, and the amount.
  """

  single: Float[Array, "V"]
  longer: tuple[
    tuple[Int[Array, "M P"], Int[Array, "M"], Float[Array, "M"]], ...
  ] = ()


@struct.dataclass
class ScoreRules:
  """Changes to scores that do not depend on sampling; Hugging Face's options.

  Attributes:
    min_length: no end token before this length, the prompt included.
    forced_start: the only token after a prompt of one token.
    forced_end: the only tokens (any of them) at the maximum length.
    decay: a start in new tokens and a factor: end tokens are favoured
      exponentially from there on.
    suppressed, suppressed_first: tokens never, and not as the first.
    word_starts: tokens that begin a word; a text that repeats three words in
      a row is dropped (Liu and Lapata 2019, "trigram blocking").
    custom: the caller's own, last but for the warps.
  """

  sequence_bias: SequenceBias | None = None
  encoder_repetition_penalty: Float[Array, ""] | None = None
  repetition_penalty: Float[Array, ""] | None = None
  bad_words: SequenceBias | None = None
  min_length: Int[Array, ""] | None = None
  forced_start: Int[Array, ""] | None = None
  forced_end: Int[Array, "M"] | None = None
  decay: tuple[Int[Array, ""], Float[Array, ""]] | None = None
  suppressed: Bool[Array, "V"] | None = None
  suppressed_first: Bool[Array, "V"] | None = None
  word_starts: Bool[Array, "V"] | None = None
  no_repeat_ngram_size: int = static(0)
  encoder_no_repeat_ngram_size: int = static(0)
  remove_invalid_values: bool = static(False)
  custom: tuple[Processor, ...] = static(())

  @property
  def are_set(self) -> bool:
    """Whether any rule would change a score."""
    return bool(
      jax.tree.leaves(self)
      or self.no_repeat_ngram_size
      or self.encoder_no_repeat_ngram_size
      or self.remove_invalid_values
      or self.custom
    )

  @property
  def by_row(self) -> bool:
    """Whether any of them changes single tokens, other ones in each text."""
    biases = (self.sequence_bias, self.bad_words)
    return bool(
      any(bias is not None and bias.longer for bias in biases)
      or self.encoder_repetition_penalty is not None
      or self.repetition_penalty is not None
      or self.custom
    )


@struct.dataclass
class Warps:
  """Changes to the distribution that is sampled from, in this order."""

  temperature: Float[Array, ""] | None = None
  top_k: int = static(0)
  top_p: Float[Array, ""] | None = None
  min_p: Float[Array, ""] | None = None
  typical_p: Float[Array, ""] | None = None
  epsilon_cutoff: Float[Array, ""] | None = None
  eta_cutoff: Float[Array, ""] | None = None


@struct.dataclass
class SearchOptions:
  """The kind of search, its limits, and what it returns.

  Attributes:
    max_length: in tokens, the prompt included.
    pad_token: fills a text after its end.
    length_penalty: the exponent; see `encdec.generation.search.length_penalty`.
    end_tokens: any of them ends a text.
    num_beams: 1: no beams.
    num_groups: of beams, each made to differ from those before it.
    num_returned: texts a source; up to `num_beams` when there are beams.
    sample: draws instead of taking the best.
    sum_log_probs: texts that are no beams have a score as beams do, of the
      model's own log-probabilities: rules and warps are not in it.
    keep_scores, keep_logits: of every step, as large as they are.
  """

  max_length: Int[Array, ""]
  pad_token: Int[Array, ""]
  length_penalty: Float[Array, ""] = struct.field(
    default_factory=lambda: jnp.ones((), jnp.float32)
  )
  diversity_penalty: Float[Array, ""] | None = None
  rules: ScoreRules = struct.field(default_factory=ScoreRules)
  warps: Warps = struct.field(default_factory=Warps)
  end_tokens: tuple[int, ...] = static(())
  num_beams: int = static(1)
  num_groups: int = static(1)
  num_returned: int = static(1)
  sample: bool = static(False)
  early_stopping: str = static("false")
  scoring: str = static("pytorch")
  renormalize_logits: bool = static(False)
  sum_log_probs: bool = static(False)
  keep_scores: bool = static(False)
  keep_logits: bool = static(False)

  @property
  def width(self) -> int:
    """N: texts that grow side by side for one source."""
    return self.num_beams if self.num_beams > 1 else self.num_returned


def _check_penalty(o: SearchOptions) -> None:
  if isinstance(o.length_penalty, Tracer) or isinstance(o.max_length, Tracer):
    return
  penalty, longest = float(o.length_penalty), max(2, int(o.max_length))
  # What float32 holds: length^penalty is a divisor.
  if not abs(penalty) * math.log(longest) < 80.0:
    raise ValueError(
      f"length_penalty={penalty} is no number that scores of up to {longest} "
      "tokens can be divided by; take one nearer to 0"
    )


def check(options: SearchOptions, vocab_size: int) -> None:
  """Raises ValueError for options that contradict each other."""
  o = options
  if min(o.num_beams, o.num_groups, o.num_returned) < 1:
    raise ValueError(
      f"num_beams={o.num_beams}, num_beam_groups={o.num_groups} and "
      f"num_return_sequences={o.num_returned} must be at least 1"
    )
  if o.num_beams > vocab_size:
    raise ValueError(
      f"num_beams={o.num_beams} exceeds the vocabulary of {vocab_size}; lower "
      "num_beams"
    )
  if o.num_beams > 1 and o.num_returned > o.num_beams:
    raise ValueError(
      f"num_return_sequences={o.num_returned} exceeds num_beams="
      f"{o.num_beams}; raise num_beams"
    )
  if o.num_beams == 1 and o.num_returned > 1 and not o.sample:
    raise ValueError(
      f"num_return_sequences={o.num_returned}: greedy search finds one text; "
      "set num_beams, or do_sample=True"
    )
  if o.num_beams % o.num_groups:
    raise ValueError(
      f"num_beams={o.num_beams} is no multiple of num_beam_groups="
      f"{o.num_groups}"
    )
  if o.num_groups > 1 and o.sample:
    raise ValueError("num_beam_groups > 1 takes do_sample=False")
  if o.num_beams == 1 and o.rules.word_starts is not None:
    raise ValueError(
      "word_starts drops beams that repeat words and there are none; set "
      "num_beams, or leave it out"
    )
  _check_penalty(o)
  if o.num_groups == 1 and o.diversity_penalty is not None:
    raise ValueError("diversity_penalty needs num_beam_groups > 1")
  for name, value, known in (
    ("early_stopping", o.early_stopping, EARLY_STOPPING),
    ("scoring", o.scoring, SCORINGS),
  ):
    if value not in known:
      raise ValueError(f"{name}={value!r} is not one of {', '.join(known)}")
