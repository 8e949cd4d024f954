"""Changes to scores before a token is chosen: Hugging Face's rules.

They act on logits, or in beam search on log-probabilities, which they leave
as they come out: nothing is normalised again unless it is asked for.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from encdec.generation.search.options import SearchOptions

Scores = Float[Array, "B N V"]
BAN = -jnp.inf


@struct.dataclass
class History:
  """The texts so far and the source, as the rules read them.

  Attributes:
    tokens: the first `length` are written.
    prompt: its length in tokens.
    readable: False at the prompt's padding.
    source, source_real: the source and where it is no padding; None where
      no rule looks at it.
    chosen: tokens that groups of beams before this one have just chosen.
    vocab_size: scores beyond it are padding.
  """

  tokens: Int[Array, "B N C"]
  length: Int[Array, "B"]
  readable: Bool[Array, "B T"]
  source: Int[Array, "B S"] | None
  source_real: Bool[Array, "B S"] | None
  chosen: Int[Array, "B M"] | None
  prompt: int = struct.field(pytree_node=False)
  vocab_size: int = struct.field(pytree_node=False)


def apply_rules(
  scores: Scores, history: History, options: SearchOptions
) -> Scores:
  """All rules that are set, in PyTorch's order; each is given its value."""
  rules = options.rules
  for rule, value in (
    (_biased, rules.sequence_bias),
    (_diversity, options.diversity_penalty),
    (_encoder_repetition, rules.encoder_repetition_penalty),
    (_repetition, rules.repetition_penalty),
    (_no_repeat_ngrams, rules.no_repeat_ngram_size or None),
    (_encoder_no_repeat_ngrams, rules.encoder_no_repeat_ngram_size or None),
    (_biased, rules.bad_words),
    (_min_length, rules.min_length),
    (_forced_start, rules.forced_start),
    (_forced_end, rules.forced_end),
    (_remove_invalid, rules.remove_invalid_values or None),
    (_decay, rules.decay),
    (_suppress, rules.suppressed),
    (_suppress_first, rules.suppressed_first),
    (_word_trigrams, rules.word_starts),
    (_custom, rules.custom),
  ):
    if value is not None:
      scores = rule(scores, history, options, value)
  return scores


def _biased(scores, history, options, bias):
  total = jnp.broadcast_to(_of_row(bias.single, scores), scores.shape)
  for prefixes, lasts, amounts in bias.longer:
    ends = _last(history, prefixes.shape[1])
    match = jnp.all(ends[:, :, None] == prefixes[None, None], axis=-1)
    # A text that is shorter than the prefix has it not.
    match = match & (history.length[:, None, None] >= prefixes.shape[1])
    amount = jnp.where(match, amounts[None, None], 0.0)
    add = jax.vmap(jax.vmap(lambda row, a, at=lasts: row.at[at].add(a)))
    total = add(total, amount)
  return scores + total


def _of_row(
  values: Float[Array, "real"] | Bool[Array, "real"], scores: Scores
) -> Float[Array, "1 1 V"] | Bool[Array, "1 1 V"]:
  """A value for each token beside scores, which may be padded."""
  return jnp.pad(values, (0, scores.shape[-1] - values.shape[0]))[None, None]


def _last(history: History, count: int) -> Int[Array, "B N K"]:
  """The last `count` tokens of each text."""
  at = history.length[:, None, None] - count
  at = at + jnp.arange(count, dtype=jnp.int32)[None, None]
  at = jnp.broadcast_to(jnp.maximum(at, 0), (*history.tokens.shape[:2], count))
  return jnp.take_along_axis(history.tokens, at, axis=-1)


def _penalised(
  scores: Scores, marked: Bool[Array, "B #N V"], penalty: Float[Array, ""]
) -> Scores:
  """Divides a positive score by the penalty, multiplies a negative one."""
  changed = jnp.where(scores < 0, scores * penalty, scores / penalty)
  return jnp.where(marked, changed, scores)


def _diversity(scores, history, options, penalty):
  if history.chosen is None:
    return scores

  def counts(ids: Int[Array, "M"]) -> Float[Array, "V"]:
    return jnp.zeros((scores.shape[-1],), jnp.float32).at[ids].add(1.0)

  return scores - penalty * jax.vmap(counts)(history.chosen)[:, None]


def _encoder_repetition(scores, history, options, penalty):
  assert history.source is not None and history.source_real is not None
  marked = _mark(history.source, history.source_real, scores.shape[-1])
  return _penalised(scores, marked[:, None], 1.0 / penalty)


def _repetition(scores, history, options, penalty):
  capacity = history.tokens.shape[-1]
  index = jnp.arange(capacity, dtype=jnp.int32)[None]
  readable = jnp.pad(
    history.readable,
    ((0, 0), (0, capacity - history.readable.shape[1])),
    constant_values=True,
  )
  seen = (index < history.length[:, None]) & readable
  seen = jnp.broadcast_to(seen[:, None], history.tokens.shape)
  marked = _mark(history.tokens, seen, scores.shape[-1])
  return _penalised(scores, marked, penalty)


def _mark(
  ids: Int[Array, "... M"], where: Bool[Array, "... M"], vocab: int
) -> Bool[Array, "... V"]:
  """True at the ids of each row that are counted."""

  def row(ids, where):
    return jnp.zeros((vocab,), bool).at[ids].max(where, mode="drop")

  for _ in range(ids.ndim - 1):
    row = jax.vmap(row)
  return row(ids, where)


def _no_repeat_ngrams(scores, history, options, size):
  ended, banned = _windows(history.tokens, size)
  match = jnp.all(ended == _last(history, size - 1)[:, :, None], axis=-1)
  # A window counts when all of it is written.
  index = jnp.arange(banned.shape[-1], dtype=jnp.int32)[None, None]
  match = match & (index + size <= history.length[:, None, None])
  return jnp.where(_mark(banned, match, scores.shape[-1]), BAN, scores)


def _encoder_no_repeat_ngrams(scores, history, options, size):
  assert history.source is not None and history.source_real is not None
  ended, banned = _windows(history.source, size)
  real, last_real = _windows(history.source_real, size)
  match = ended[:, None] == _last(history, size - 1)[:, :, None]
  match = jnp.all(match & real[:, None], axis=-1) & last_real[:, None]
  match = match & (history.length[:, None, None] >= size - 1)
  banned = jnp.broadcast_to(banned[:, None], match.shape)
  return jnp.where(_mark(banned, match, scores.shape[-1]), BAN, scores)


def _windows(ids: Array, size: int) -> tuple[Array, Array]:
  """All but the last, and the last, of every `size` entries in a row."""
  count = max(ids.shape[-1] - size + 1, 0)
  at = jnp.arange(count)[:, None] + jnp.arange(size)[None]
  windows = ids[..., at]
  return windows[..., :-1], windows[..., -1]


def _min_length(scores, history, options, shortest):
  if not options.end_tokens:
    return scores
  early = (history.length < shortest)[:, None, None]
  return jnp.where(early & _ends(options, scores.shape[-1]), BAN, scores)


def _ends(options: SearchOptions, vocab: int) -> Bool[Array, "1 1 V"]:
  return _only(jnp.asarray(options.end_tokens, jnp.int32), vocab)


def _only(ids: Int[Array, "M"], vocab: int) -> Bool[Array, "1 1 V"]:
  return jnp.zeros((1, 1, vocab), bool).at[0, 0, ids].set(True)


def _forced_start(scores, history, options, token):
  here = (history.length == 1)[:, None, None]
  return _forced(scores, here, token[None])


def _forced_end(scores, history, options, tokens):
  here = (history.length == options.max_length - 1)[:, None, None]
  return _forced(scores, here, tokens)


def _forced(
  scores: Scores, here: Bool[Array, "B 1 1"], ids: Int[Array, "M"]
) -> Scores:
  forced = jnp.where(_only(ids, scores.shape[-1]), 0.0, BAN)
  return jnp.where(here, forced, scores)


def _remove_invalid(scores, history, options, value):
  limits = jnp.finfo(scores.dtype)
  scores = jnp.where(jnp.isnan(scores), 0.0, scores)
  scores = jnp.where(scores == jnp.inf, limits.max, scores)
  return jnp.where(scores == -jnp.inf, limits.min, scores)


def _decay(scores, history, options, decay):
  start, factor = decay
  beyond = history.length - (start + history.prompt)
  increase = factor ** jnp.maximum(beyond, 0).astype(jnp.float32) - 1.0
  finite = jnp.where(jnp.isfinite(scores), jnp.abs(scores), 0.0)
  ends = _ends(options, scores.shape[-1])
  favoured = scores + finite * increase[:, None, None]
  return jnp.where(ends & (beyond > 0)[:, None, None], favoured, scores)


def _suppress(scores, history, options, tokens):
  return jnp.where(_of_row(tokens, scores), BAN, scores)


def _suppress_first(scores, history, options, tokens):
  first = history.prompt
  if first == 1 and options.rules.forced_start is not None:
    first = 2
  here = (history.length == first)[:, None, None]
  return jnp.where(here & _of_row(tokens, scores), BAN, scores)


def _word_trigrams(scores, history, options, starts):
  repeated = repeats_words(history.tokens, history.length, starts, words=3)
  # Low, not -inf: a source all of whose texts repeat still gets one.
  return jnp.where(repeated[..., None], scores - 1e20, scores)


def repeats_words(
  tokens: Int[Array, "B N C"],
  length: Int[Array, "B"],
  starts: Bool[Array, "V"],
  *,
  words: int,
) -> Bool[Array, "B N"]:
  """Whether a text's last words, whole and in a row, are in it twice.

  Args:
    starts: False at tokens that continue a word.
  """
  capacity = tokens.shape[-1]
  index = jnp.arange(capacity, dtype=jnp.int32)
  length = length[:, None, None]
  written = index[None, None] < length
  begins = (starts[tokens] | (index == 0)[None, None]) & written
  # Words from each token's own to the end of the text.
  begun = jnp.cumsum(begins[..., ::-1], axis=-1, dtype=jnp.int32)[..., ::-1]
  left = begun - begins.astype(jnp.int32) + 1
  long = jnp.sum(written & (left <= words), axis=-1, keepdims=True)
  enough = begun[..., :1] > words
  # The text against itself, shifted: tokens from its end that are the same.
  ends = length - 1 - index[None, None]
  ends = jnp.broadcast_to(jnp.maximum(ends, 0), tokens.shape)
  reverse = jnp.take_along_axis(tokens, ends, axis=-1)
  shifted = index[:, None] + index[None]
  other = reverse[..., jnp.minimum(shifted, capacity - 1)]
  same = (other == reverse[:, :, None]) & (
    shifted[None, None] < length[..., None]
  )
  covered = same | (index[None, None, None] >= long[..., None])
  match = jnp.all(covered, axis=-1)
  # The earlier words must end where a word does; they may overlap the last.
  after = jnp.clip(length - index[None, None], 0, capacity - 1)
  after = jnp.broadcast_to(after, tokens.shape)
  after = jnp.take_along_axis(begins, after, axis=-1)
  match = match & after & (index >= 1)[None, None] & enough
  return jnp.any(match, axis=-1)


def _custom(scores, history, options, processors):
  for processor in processors:
    length = jnp.broadcast_to(history.length[:, None], history.tokens.shape[:2])
    given = scores[..., : history.vocab_size]
    changed = processor(length, history.tokens, given)
    if (changed.shape, changed.dtype) != (given.shape, given.dtype):
      raise ValueError(
        f"logits_processor {processor!r} returned {jax.typeof(changed)} for "
        f"{jax.typeof(given)}: return as many of the same dtype"
      )
    scores = scores.at[..., : history.vocab_size].set(changed)
  return scores
