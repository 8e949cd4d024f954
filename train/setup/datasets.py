"""The data of a run: the training pairs, and the held-out sets by name."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
from absl import logging

from data import duplicates, sources
from data.buckets import Shape, make_buckets
from data.mixture import Mixture
from data.pipeline import Pipeline, make_pipeline
from data.store import prepared
from data.store.encoding import Encoding
from data.store.pairs import Pairs
from data.store.prepare import prepare_set
from data.store.prepared import PreparedPairs
from data.store.source_cache import open_remembered
from train import validate
from train.cli import paths
from train.config import Config
from train.processes import agreement
from train.setting_names import naming
from train.setup import tokenizers
from train.setup.task import Task


def train_pairs(config: Config, task: Task, folder: Path) -> Mixture:
  """The pairs of `data.train`, prepared where they are not yet.

  Args:
    folder: of the run.
  """
  weights = sources.parse_mixture(config.data.train)
  parts = tuple(_stored_set(config, task, folder, uri) for uri in weights)
  return Mixture(parts, tuple(weights.values()))


def train_pipeline(config: Config, pairs: Mixture, folder: Path) -> Pipeline:
  """The batches of training, by `data.packing`.

  Raises:
    ValueError: a pair that no row or bucket holds.
  """
  return make_pipeline(
    pairs,
    packing=config.data.packing,
    batch_size=config.train.batch_size,
    seed=config.seed,
    buckets=buckets(config),
    pack_shape=pack_shape(config),
    folder=_store(config, folder),
  )


def held_out(
  config: Config, task: Task, folder: Path, text: str, bare: str = "valid"
) -> dict[str, Pairs]:
  """The sets that `text` ("name=uri,name=uri") names, in its order.

  Args:
    folder: of the run.
    bare: what a set without a name is called.
  """
  return {
    name: _stored_set(config, task, folder, uri)
    for name, uri in sources.parse_eval(text, bare).items()
  }


def check(config: Config, folder: Path) -> None:
  """Opens every set that the run will ever read; prepares none.

  Args:
    folder: of the run.

  Raises:
    ValueError, OSError: a set is misnamed, is missing or lacks a field; or the
      shapes do not fit data.packing.
  """
  _check_packing(config)
  _check_case(config)
  _store(config, folder)
  for uri, key in _uris(config).items():
    with naming(key):
      _open(config, uri, folder)


def prepare_sets(
  config: Config, task: Task, folder: Path
) -> Iterator[tuple[str, PreparedPairs]]:
  """Every set that the run will ever read, by URI, each checked to the byte."""
  for uri in _uris(config):
    pairs = _stored_set(config, task, folder, uri)
    prepared.verify(pairs.folder)
    yield uri, pairs


def _uris(config: Config) -> dict[str, str]:
  """Each set's URI, and the first key that names it."""
  with naming("data.train", config.data.train):
    keys = dict.fromkeys(sources.parse_mixture(config.data.train), "data.train")
  for key in ("data.eval", "data.test"):
    for uri in sources.parse_eval(config[key]).values():
      keys.setdefault(uri, key)
  return keys


def warn_of_duplicates(
  config: Config, pairs: Mixture, sets: Mapping[str, Pairs], folder: Path
) -> None:
  """Says which held-out sets have records of the training data.

  Every training record is read once: for the first start of a run.
  """
  held_out = {f"data.eval {name}": s.source for name, s in sets.items()}
  for name, uri in sources.parse_eval(config.data.test, "test").items():
    held_out[f"data.test {name}"] = _open(config, uri, folder)
  logging.info("looking for held-out records in the training data")
  overlaps = duplicates.find(
    [part.source for part in pairs.parts],
    held_out,
    source_field=config.data.source_field,
    target_field=config.data.target_field,
  )
  for name, overlap in overlaps.items():
    if overlap.sources:
      logging.warning("%s: %s", name, overlap)


def is_trained(config: Config, side: str) -> bool:
  """Whether the tokenizer of "encoder" or "decoder" is made by the run."""
  named = config.data[f"{tokenizers.SIDES[side]}_tokenizer"]
  preset = validate.is_preset(config.model[side])
  return preset and not (named or config.model.pair)


def _check_case(config: Config) -> None:
  trained = [side for side in tokenizers.SIDES if is_trained(config, side)]
  if config.data.keep_case and not trained:
    raise ValueError(
      "data.keep_case = True is for tokenizers that a run trains, and this one "
      "trains none: set it to False, and for capitals and accents name cased "
      "ones in data.source_tokenizer and data.target_tokenizer"
    )


def _check_packing(config: Config) -> None:
  data = config.data
  for side in ("source", "target"):
    name, longest = f"pack_{side}_length", data[f"max_{side}_length"]
    if data[name] and data.packing != "pack":
      raise ValueError(
        f"data.{name} = {data[name]}, but data.packing = {data.packing!r}: set "
        "that to 'pack', or this to 0"
      )
    if data[name] and data[name] < longest:
      raise ValueError(
        f"data.{name} = {data[name]}: such a row holds no pair of "
        f"data.max_{side}_length = {longest}; raise it to that at least, or "
        "set it to 0"
      )
  if data.packing == "bucket" and not data.source_buckets:
    raise ValueError(
      "data.packing = 'bucket', and there are no buckets: set "
      "data.source_buckets and data.target_buckets"
    )


def describe_batches(pipeline: Pipeline) -> str:
  """How the pairs stand in batches, and how often that compiles."""
  shapes = ", ".join(f"{s}+{t}" for s, t in pipeline.shapes)
  rows = pipeline.batch_size
  if pipeline.packing == "pack":
    full = pipeline.fill()
    return (
      f"{rows} rows of {shapes} tokens, {full.pairs_per_row:.1f} pairs a row; "
      f"{full.source:.0%} of the source and {full.target:.0%} of the target "
      "positions hold a token; one step compiles"
    )
  kind = "of one bucket" if pipeline.packing == "bucket" else "in any order"
  count = len(pipeline.shapes)
  steps = (
    "one step compiles" if count == 1 else f"at most {count} steps compile"
  )
  return f"{rows} pairs {kind}, padded to {shapes} tokens; {steps}"


def pack_shape(config: Config) -> Shape:
  """The shape of a packed row."""
  data = config.data
  return (
    data.pack_source_length or data.max_source_length,
    data.pack_target_length or data.max_target_length,
  )


def largest_shape(config: Config) -> Shape:
  """The shape of the longest batches of training."""
  packed = config.data.packing == "pack"
  return pack_shape(config) if packed else buckets(config)[-1]


def buckets(config: Config) -> tuple[Shape, ...]:
  """The shapes that a batch may have that is not packed, smallest first."""
  data = config.data
  return make_buckets(
    data.source_buckets,
    data.target_buckets,
    data.max_source_length,
    data.max_target_length,
  )


def encoding(config: Config, task: Task) -> Encoding:
  """How records become ids."""
  data = config.data
  return Encoding(
    source_field=data.source_field,
    target_field=data.target_field,
    source_tokenizer=task.source_tokenizer,
    target_tokenizer=task.target_tokenizer,
    tokens=task.batch_tokens,
    max_source_length=data.max_source_length,
    max_target_length=data.max_target_length,
    on_bad_record=data.on_bad_record,
  )


def _stored_set(
  config: Config, task: Task, folder: Path, uri: str
) -> PreparedPairs:
  """A set from the store; each process asks, and one that may makes it.

  So hosts without a common file system prepare the same bits for themselves;
  that they have is checked.
  """
  chief = jax.process_index() == 0
  store = _store(config, folder)
  with paths.making(f"data.store = {config.data.store!r}"):
    store.mkdir(parents=True, exist_ok=True)
  pairs = prepare_set(
    _open(config, uri, folder),
    encoding(config, task),
    store,
    workers=config.data.prepare_workers,
    show=chief,
  )
  agreement.check_same(uri, pairs.fingerprint)
  # Now there is a folder in which to remember it.
  _open(config, uri, folder)
  if chief:
    logging.info("%s: %s", uri, describe(pairs))
  return pairs


def _store(config: Config, folder: Path) -> Path:
  store = config.data.store
  if "://" in store:
    raise ValueError(
      f"data.store = {store!r}: files are locked, mapped and renamed there, "
      "which a bucket cannot do; set it to a folder"
    )
  with paths.making(f"data.store = {store!r}"):
    for path in (Path(store), *Path(store).absolute().parents):
      if path.exists() and not path.is_dir():
        raise ValueError(
          f"data.store = {store!r}: {path} is a file; set it to a folder"
        )
  return Path(store) if store else folder / "store"


def _open(config: Config, uri: str, folder: Path) -> sources.Source:
  return open_remembered(
    uri,
    fields=(config.data.source_field, config.data.target_field),
    on_bad_record=config.data.on_bad_record,
    folder=_store(config, folder),
  )


def describe(pairs: Pairs) -> str:
  """What became of the records of a set."""
  counts = pairs.counts
  parts = [f"{counts.pairs} pairs"]
  for number, what in (
    (counts.skipped_records, "malformed records skipped"),
    (counts.empty_sources, "empty sources skipped"),
    (counts.empty_targets, "empty targets"),
    (counts.truncated_sources, "sources truncated"),
    (counts.truncated_targets, "targets truncated"),
  ):
    if number:
      parts.append(f"{number} {what}")
  return ", ".join(parts)
