"""From sources to texts, with the settings of `generation`."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Int32

from data import device
from data.collate import collate_sources
from encdec.generation import programs
from encdec.generation.decode_params import unstack
from encdec.generation.search.options import SearchOptions
from encdec.generation.streaming import generate_stream
from encdec.masks import token_positions
from encdec.sharding import Rules
from encdec.sharing import expand
from encdec.types import Params
from train import generation_settings
from train.config import Config
from train.generation_settings import GenerationSettings
from train.mesh import batch_sharding, batch_shards
from train.setup import datasets
from train.setup.task import Task

Key = TypeVar("Key")


@dataclasses.dataclass(frozen=True)
class GenerationRequest(Generic[Key]):
  """A source as ids; `key` is the caller's own."""

  key: Key
  ids: Int32[np.ndarray, " S"]


@dataclasses.dataclass(frozen=True)
class GeneratedTexts(Generic[Key]):
  """The texts of a source, best first: without start and end.

  A score is the log-probability over the length's penalty.
  """

  key: Key
  texts: tuple[str, ...]
  scores: tuple[float, ...]


class TextGenerator:
  """Generates texts on a mesh; every process gets them all.

  Use it inside `jax.set_mesh(mesh)`.
  """

  def __init__(self, task: Task, config: Config, mesh: Mesh):
    self.module = task.module
    self.task = task
    self.tokens = task.batch_tokens
    settings = task.generation_settings(config)
    self.max_length = settings.max_length
    self.options = search_options(settings, task)
    self.lengths = sorted({source for source, _ in datasets.buckets(config)})
    self.rows = rows_per_batch(config, mesh, task.rules)
    _log_rounded(config, self.rows)
    self.sharding = batch_sharding(mesh, task.rules)
    self.decoding_params = jax.jit(self._decoding_params)

  def _decoding_params(self, params: Params) -> Params:
    """The decoding form of stored parameters, once a version of them."""
    return unstack(expand(params, self.module.config), self.module)

  def generate(
    self,
    decoding_params: Params,
    sources: Iterable[GenerationRequest[Key]],
    window: int | None = None,
    call: Callable[..., Any] = programs.call,
  ) -> Iterator[GeneratedTexts[Key]]:
    """The texts of each source, as they are found.

    Sources are grouped by their bucket of lengths within `window` of them, or
    all. At most a window and two batches are held.

    Args:
      call: calls programs, as of `generate_stream`.
    """
    in_order = _by_bucket(sources, self.bucket, window)
    for length, group in itertools.groupby(in_order, key=self.bucket):
      streamed = generate_stream(
        self.module,
        decoding_params,
        group,
        lambda batch, length=length: self._place(batch, length),
        options=self.options,
        start_token=self.tokens.start,
        cache_length=self.max_length - 1,
        rows=self.rows,
        call=call,
      )
      for source, texts in streamed:
        assert texts.scores is not None, "options ask for scores"
        rows = zip(texts.tokens, texts.lengths, strict=True)
        yield GeneratedTexts(
          source.key,
          tuple(self.task.text_of(ids[1:length]) for ids, length in rows),
          tuple(map(float, texts.scores)),
        )

  def bucket(self, source: GenerationRequest) -> int:
    """The smallest length of the configuration that holds a source."""
    return next(n for n in self.lengths if n >= len(source.ids))

  def _place(
    self, sources: Sequence[GenerationRequest | None], length: int
  ) -> dict[str, jax.Array]:
    """The encoder's arrays; each process builds its own devices' rows."""
    rows = device.local_rows(self.sharding, self.rows)
    nothing = np.zeros(0, np.int32)
    mine = [sources[row] for row in rows.tolist()]
    batch = collate_sources(
      [nothing if source is None else source.ids for source in mine],
      length=length,
      pad_id=self.tokens.source_pad,
      sentence_end=self.tokens.sentence_end,
    )
    # A batch counts tokens, whatever their ids.
    batch["encoder_positions"] = token_positions(
      batch["encoder_tokens"], self.module.config.encoder.unplaced_token
    )
    return device.to_device(batch, rows, self.sharding, self.rows)


def _by_bucket(
  sources: Iterable[GenerationRequest[Key]],
  bucket: Callable[[GenerationRequest[Key]], int],
  window: int | None,
) -> Iterator[GenerationRequest[Key]]:
  """Windows, each sorted by bucket, up and down by turns.

  So that the search changes its shape as seldom as can be.
  """
  sources, descending = iter(sources), False
  while requests := list(itertools.islice(sources, window)):
    yield from sorted(requests, key=bucket, reverse=descending)
    descending = not descending


def search_options(settings: GenerationSettings, task: Task) -> SearchOptions:
  """What the settings ask of a search for `task`."""
  vocab_size = task.module.config.decoder.vocab_size
  word_starts = None
  if settings.block_trigrams:
    word_starts = np.ones(vocab_size, bool)
    own = task.target_tokenizer.word_starts()
    word_starts[: len(own)] = own
  return generation_settings.search_options(
    settings, task.tokens, vocab_size, word_starts
  )


def rows_per_batch(config: Config, mesh: Mesh, rules: Rules) -> int:
  """Rows of a batch outside training, a multiple of the batch's shards.

  Rows without an example pad the last batch anyway, so that what is asked for
  may be rounded up.
  """
  shards = batch_shards(mesh, rules)
  return -(-_rows_asked(config) // shards) * shards


def _rows_asked(config: Config) -> int:
  return config.eval.batch_size or config.train.batch_size


def _log_rounded(config: Config, rows: int) -> None:
  """Says that batches have more rows than the configuration asks for."""
  if rows != _rows_asked(config) and jax.process_index() == 0:
    logging.info(
      "batches of evaluation and prediction have %d rows, not the %d of "
      "eval.batch_size (0: train.batch_size): a multiple of the devices that "
      "share them",
      rows,
      _rows_asked(config),
    )
