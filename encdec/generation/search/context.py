"""The context that all searches share, and the scores of a step."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from encdec import sharding
from encdec.generation.search import processors, topk
from encdec.generation.search.hypotheses import Hypotheses
from encdec.generation.search.options import SearchOptions
from encdec.generation.search.warpers import warp


@struct.dataclass
class SearchContext:
  """The options of one search, and what its rules read.

  Attributes:
    platform: that the search is compiled for, see `encdec.platform`.
    source, source_real: for the rules of the encoder; None where none is set.
    prompt: its length in tokens.
    vocab_size: scores beyond it are padding.
    unplaced: the id that takes no position; None: each takes one.
    rules: where rows lie on a mesh; None: there is none.
  """

  options: SearchOptions
  platform: str = struct.field(pytree_node=False)
  source: Int[Array, "B S"] | None = None
  source_real: Bool[Array, "B S"] | None = None
  prompt: int = struct.field(pytree_node=False, default=1)
  vocab_size: int = struct.field(pytree_node=False, default=0)
  unplaced: int | None = struct.field(pytree_node=False, default=None)
  rules: sharding.Rules | None = struct.field(pytree_node=False, default=None)

  def vocab_major(self, scores: Float[Array, "B N V"]) -> bool:
    """Whether scores are ranked with V as the outer axis in memory.

    So a CPU's head leaves them. Where something else reads them row by row they
    are transposed once, for all readers.
    """
    options, rows = self.options, scores.shape[0] * scores.shape[1]
    transposed = (
      options.rules.by_row
      or options.sample
      or options.num_groups > 1
      or options.renormalize_logits
      or options.sum_log_probs
      or options.keep_scores
      or options.keep_logits
    )
    return not transposed and topk.prefers_vocab_major(rows, self.platform)


def step_scores(
  scores: Float[Array, "B N V"],
  texts: Hypotheses,
  search: SearchContext,
  chosen: Int[Array, "B M"] | None = None,
) -> Float[Array, "B N V"]:
  """Scores after all that the options ask for, in PyTorch's order.

  Args:
    scores: logits, or in beam search log-probabilities.
    chosen: what other groups of beams have just chosen.
  """
  options = search.options
  changed = options.rules.are_set or chosen is not None
  if changed:
    history = processors.History(
      tokens=texts.tokens,
      length=texts.length,
      readable=texts.readable,
      source=search.source,
      source_real=search.source_real,
      chosen=chosen,
      prompt=search.prompt,
      vocab_size=search.vocab_size,
    )
    scores = processors.apply_rules(scores, history, options)
  padded = search.vocab_size < scores.shape[-1]
  if padded and (changed or options.sample):
    # Where all is banned, padding must not be the best that is left.
    real = jnp.arange(scores.shape[-1], dtype=jnp.int32) < search.vocab_size
    scores = jnp.where(real[None, None], scores, -jnp.inf)
  if options.sample:
    # Beams need something to go on with besides the ends.
    keep = len(options.end_tokens) + 1 if options.num_beams > 1 else 1
    scores = warp(scores, options.warps, keep)
  if options.renormalize_logits:
    scores = jax.nn.log_softmax(scores, axis=-1)
  return scores


def is_end(
  tokens: Int[Array, "..."], end_tokens: tuple[int, ...]
) -> Bool[Array, "..."]:
  """Whether each token ends its text."""
  ended = jnp.zeros(tokens.shape, bool)
  for end in end_tokens:
    ended = ended | (tokens == end)
  return ended
