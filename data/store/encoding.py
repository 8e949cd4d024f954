"""Encoding: how the records of a source become ids."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from data import sentences
from data.examples import Example, Tokens, make_example
from data.schemes.records import Record
from data.sources import Source, check_on_bad_record
from data.tokenizers.tokenizer import Tokenizer

_CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class Encoding:
  """Two tokenizers, two fields and two maximum lengths.

  A source without a token of its own (special tokens aside) is a bad record:
  `on_bad_record` is "error" or "skip".
  """

  source_field: str
  target_field: str
  source_tokenizer: Tokenizer
  target_tokenizer: Tokenizer
  tokens: Tokens
  max_source_length: int
  max_target_length: int
  on_bad_record: str = "error"

  def __post_init__(self):
    check_on_bad_record(self.on_bad_record)

  def examples(
    self, source: Source, records: range
  ) -> Iterator[tuple[int, Example]]:
    """The good ones of some records, tokenised and truncated, by number.

    Raises ValueError naming the first bad one, if that is an error.
    """
    for start in range(records.start, records.stop, _CHUNK):
      chunk = range(start, min(start + _CHUNK, records.stop))
      yield from self._chunk(source, chunk)

  def _chunk(
    self, source: Source, chunk: range
  ) -> Iterator[tuple[int, Example]]:
    one, other = self.source_tokenizer, self.target_tokenizer
    texts = [source[i] for i in chunk]
    encoded = zip(
      chunk,
      sentences.encode_sources(
        one, [t[self.source_field] for t in texts], self.tokens
      ),
      other.encode_batch([t[self.target_field] for t in texts]),
      strict=True,
    )
    empty = len(one.prefix) + len(one.suffix)
    for record, source_ids, target_ids in encoded:
      if len(source_ids) > empty:
        yield record, self._example(source_ids, target_ids)
      elif self.on_bad_record == "error":
        fault = self._empty(source[record], texts)
        raise ValueError(
          f"{source.locate(record)}: {fault}; fix it, or set "
          "data.on_bad_record=skip"
        )

  def _example(
    self, source_ids: Sequence[int], target_ids: Sequence[int]
  ) -> Example:
    return make_example(
      source_ids,
      target_ids,
      start_id=self.tokens.start,
      end_id=self.tokens.end,
      max_source_length=self.max_source_length,
      max_target_length=self.max_target_length,
      source_suffix=self.source_tokenizer.suffix,
      target_suffix=self.target_tokenizer.suffix,
    )

  @functools.cached_property
  def empty_target(self) -> int:
    """Tokens of a target that has no text: special ones alone."""
    target = self.target_tokenizer
    return len(self._example([], [*target.prefix, *target.suffix]).target)

  def _empty(self, bad: Record, texts: Sequence[Record]) -> str:
    """What is wrong with a source of no token, and with those around it."""
    text = bad[self.source_field]
    what = f"data.source_field = {self.source_field!r} "
    if text.strip():
      what += f"holds nothing that the tokenizer knows ({text[:40]!r})"
    else:
      what += "is blank" if text else "is empty"
    fields = (self.source_field, self.target_field)
    sources, targets = (
      sum(not record[field].strip() for record in texts) for field in fields
    )
    if sources < 2:
      return what
    what += (
      f", as in {sources} of the {len(texts)} records read together, of which "
      f"{targets} have an empty data.target_field = {self.target_field!r}"
    )
    # A target may be empty: what holds gaps and what holds none are exchanged.
    return what if targets else f"{what}: are the two fields swapped?"

  @functools.cached_property
  def facts(self) -> dict[str, Any]:
    """All that decides the ids of a record, as JSON has it."""
    values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    if self.tokens.end in self.target_tokenizer.suffix[:-1]:
      # Sets were made with a second end token after these.
      values["target_end"] = "the tokenizer's"
    return values | {
      "source_tokenizer": self.source_tokenizer.fingerprint,
      "target_tokenizer": self.target_tokenizer.fingerprint,
      "tokens": self.tokens.as_dict(),
    }
