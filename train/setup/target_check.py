"""The targets of a run: whether its target tokenizer can write them at all."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging

from data import sources
from data.inspection import Sample
from data.mixture import Mixture
from data.store.pairs import encode_pairs
from data.tokenizers import round_trip
from data.tokenizers.round_trip import RoundTrips
from encdec.archs import ARCHS
from train.config import Config
from train.setup import datasets
from train.setup.task import Task

# Targets that are looked at, and the share of them that shall be unchanged.
SAMPLE = 1000
ENOUGH = 0.95
# The greatest maximum length there may be.
_WHOLE = 1 << 20


def measure(config: Config, task: Task, pairs: Mixture) -> RoundTrips:
  """What comes back of a sample of the training targets.

  They are encoded as training does, but not truncated, decoded as generated
  texts are, and compared as exact match does. Of a mixture each source has its
  share of the sample, which is evenly spread.
  """
  shares = sources.parse_mixture(config.data.train).values()
  parts = zip(pairs.parts, shares, strict=True)
  return round_trip.measure(
    pair
    for part, share in parts
    for pair in _round_trips(
      config, task, Sample(part.source, round(SAMPLE * share) or 1)
    )
  )


def _round_trips(
  config: Config, task: Task, sample: Sample
) -> Iterator[tuple[str, str]]:
  whole = dataclasses.replace(
    datasets.encoding(config, task),
    max_source_length=_WHOLE,
    max_target_length=_WHOLE,
  )
  encoded = encode_pairs(sample, whole)
  for index in range(len(encoded)):
    back = task.text_of(encoded[index].target)
    yield encoded.record(index)[config.data.target_field], back


def advice(config: Config, task: Task, trips: RoundTrips) -> str:
  """What to do where too few targets come back; empty: there are enough."""
  if trips.share("unchanged") >= ENOUGH:
    return ""
  parts = []
  if trips.counts["case"]:
    parts.append(_keep_case(config, task))
  if trips.spaced:
    parts.append(
      "a byte-level or sentencepiece tokenizer, of a GPT-2 or another decoder, "
      "keeps spaces where WordPiece puts them beside signs"
    )
  if trips.counts["characters"]:
    parts.append(
      "characters that the vocabulary lacks need another "
      "data.target_tokenizer, or a larger data.target_vocab_size where it is "
      "trained"
    )
  return (
    "exact_match counts a target that the tokenizer cannot write as wrong, "
    f"however well the model learns: {'; '.join(parts)}"
  )


def _keep_case(config: Config, task: Task) -> str:
  trained = datasets.is_trained(config, "decoder")
  decoder: Any = task.hub_config.decoder
  kind = ARCHS[decoder.model_type].TOKENIZER
  if trained and kind == "wordpiece":
    return "set data.keep_case=True for capitals and accents"
  return (
    "for capitals and accents name a cased tokenizer in data.target_tokenizer, "
    "or a model.decoder that has one"
  )


def report(config: Config, task: Task, pairs: Mixture) -> None:
  """Logs, in the first process, what `measure` and `advice` say."""
  if jax.process_index() != 0:
    return
  trips = measure(config, task, pairs)
  logging.info("%s: %s", config.data.train, round_trip.describe(trips))
  if said := advice(config, task, trips):
    logging.warning("%s", said)
