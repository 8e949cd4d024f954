"""Converts checkpoints to the parameter tree, and the tree to Hub tensors."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Key

from encdec.config import EncDecConfig, Share
from encdec.hub.error_text import few
from encdec.hub.files.lazy_tensors import Tensors
from encdec.hub.files.safetensors_writer import TensorToWrite
from encdec.hub.weights import derived_tensors, tensor_map
from encdec.hub.weights.lazy_params import LazyParams, LeafPlacer
from encdec.hub.weights.loading_report import (
  OF_PYTHON,
  LoadingError,
  LoadingReport,
  Remedies,
  check,
)
from encdec.hub.weights.match import Checkpoint, match, unique
from encdec.hub.weights.tensor_map import TensorMapping, tensor_mappings
from encdec.hub.weights.tying import check_shared
from encdec.model import FlaxEncoderDecoderModule, param_shapes
from encdec.types import Params


def load(
  module: FlaxEncoderDecoderModule,
  checkpoints: list[Checkpoint],
  key: Key[Array, ""],
  *,
  place: LeafPlacer | None = None,
  initialise_missing: bool = False,
  remedies: Remedies = OF_PYTHON,
) -> tuple[Params, LoadingReport]:
  """The stored tree, read from checkpoints; missing tensors are drawn.

  Args:
    place: see `LeafPlacer`; default: numpy arrays of `module.param_dtype`.

  Raises:
    LoadingError: as `load_lazily`.
  """
  lazy, report = load_lazily(
    module,
    checkpoints,
    key,
    initialise_missing=initialise_missing,
    remedies=remedies,
  )
  return lazy.tree(place), report


def load_lazily(
  module: FlaxEncoderDecoderModule,
  checkpoints: list[Checkpoint],
  key: Key[Array, ""],
  *,
  initialise_missing: bool = False,
  ignore_mismatched_sizes: bool = False,
  remedies: Remedies = OF_PYTHON,
) -> tuple[LazyParams, LoadingReport]:
  """As `load`, but tensors are read later.

  Leaves that are drawn equal those of `init_params(module, key)`.

  Args:
    checkpoints: one composite, or at most one a side; a side without is drawn,
      but for what it shares, which is the other side's.
    remedies: what errors advise.

  Raises:
    LoadingError: something is missing, unknown or of another shape.
  """
  config = module.config
  covered = {checkpoint.side for checkpoint in checkpoints}
  shapes = leaf_shapes(config, module.param_dtype)
  arrays: dict[str, np.ndarray] = {}
  reports = []
  for checkpoint in checkpoints:
    # What the sides share is stored, and so read, as the encoder's.
    read_as = config
    if covered == {"decoder"}:
      read_as = dataclasses.replace(config, share=Share.NONE)
    wanted = [s for s in tensor_mappings(read_as) if _is_of(s, checkpoint.side)]
    shapes_read = leaf_shapes(read_as, module.param_dtype)
    report, matched = match(checkpoint, wanted, shapes_read, read_as)
    check(
      dataclasses.replace(report, missing=()) if initialise_missing else report,
      checkpoint.where,
      ignore_mismatched=ignore_mismatched_sizes,
      remedies=remedies.of(checkpoint.side),
      architectures=checkpoint.architectures,
    )
    arrays |= matched if read_as == config else _as_stored(matched, config)
    reports.append(report)
  fresh = [
    s for s in tensor_mappings(config) if s.name not in arrays and not s.second
  ]
  for checkpoint in checkpoints:
    tensors, where = checkpoint.by_name(config), checkpoint.where
    check_shared(arrays, tensors, config, where, remedies.unshared)
  report = _joined(reports, fresh, covered)
  sources = tuple(checkpoint.tensors for checkpoint in checkpoints)
  shared = (m.name for m in tensor_mappings(config) if m.shared)
  settings: Any = jax.config
  device = settings.jax_default_device
  return (
    LazyParams(module, shapes, arrays, tuple(fresh), key, sources, device),
    dataclasses.replace(report, shared=unique(shared)),
  )


def _as_stored(
  tensors: Mapping[str, np.ndarray], config: EncDecConfig
) -> dict[str, np.ndarray]:
  """A decoder's tensors, those that it shares by the encoder's names."""
  every = list(tensor_mappings(config))
  first = {m.piece: m.name for m in every if not m.second}
  stored = {m.name: first[m.piece] for m in every if m.shared}
  return {stored.get(name, name): array for name, array in tensors.items()}


def _is_of(mapping: TensorMapping, side: str | None) -> bool:
  """Whether a side's files hold a tensor; a pair's (None) hold them all.

  The projection goes with the decoder, whose cross-attention it was trained
  with.
  """
  return side is None or (mapping.side or "decoder") == side


def leaf_shapes(config: EncDecConfig, dtype: Any) -> dict[str, Any]:
  """The shape of each stored leaf, by path, with that dtype."""
  return {
    path: jax.ShapeDtypeStruct(shape, dtype)
    for path, shape in _traced(config).items()
  }


@functools.lru_cache(8)
def _traced(config: EncDecConfig) -> Mapping[str, tuple[int, ...]]:
  # Tracing takes as long as mapping 1 GB.
  leaves: dict[str, Any] = traverse_util.flatten_dict(
    param_shapes(FlaxEncoderDecoderModule(config)), sep="/"
  )
  return MappingProxyType({path: leaf.shape for path, leaf in leaves.items()})


def _joined(
  reports: list[LoadingReport],
  fresh: list[TensorMapping],
  covered: set[str | None],
) -> LoadingReport:
  expected = [name for report in reports for name in report.expected]
  if None not in covered:
    expected += [
      m.name
      for m in fresh
      # A side that no checkpoint was named for, and the projection.
      if m.side not in covered
    ]
  projection = unique(m.name for m in fresh if not m.side)
  new = any(s.path.startswith("decoder/layers/cross_attention") for s in fresh)
  if "decoder" not in covered or new:
    projection = ()
  joined: dict[str, tuple[Any, ...]] = {
    field: tuple(one for report in reports for one in getattr(report, field))
    for field in ("missing", "unexpected", "mismatched", "heads", "unused")
  }
  return LoadingReport(
    **joined,
    initialised=unique(m.name for m in fresh),
    expected=unique(iter(expected)),
    projection=projection,
  )


def tensors_to_write(
  config: EncDecConfig,
  params: Params,
  part: str | None = None,
  unread: Tensors | None = None,
) -> list[TensorToWrite]:
  """The pair's tensors, or one side's, to be written one after another.

  Names are a composite's, or for a part those of that model alone.

  Args:
    unread: all tensors that the tree would be read from, by their composite
      names; they are written as they are, and `params` may be shapes.

  Raises:
    ValueError: the tree lacks a leaf, or one has another shape.
  """
  leaves: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
  wanted = leaf_shapes(config, np.float32)
  grouped: dict[str, list[TensorMapping]] = {}
  as_they_are: dict[Any, np.ndarray] = {}
  for mapping in tensor_mappings(config):
    if _is_of(mapping, part):
      grouped.setdefault(mapping.name, []).append(mapping)
    if unread is not None and mapping.name in unread:
      as_they_are.setdefault(mapping.piece, unread[mapping.name])
  result = []
  for name, pieces in grouped.items():
    path = pieces[0].path
    if path not in leaves:
      raise ValueError(f"params lack {path}, which {name} is written from")
    shape = tensor_map.hub_shape(pieces[0], leaves[path].shape)
    if shape != tensor_map.hub_shape(pieces[0], wanted[path].shape):
      raise ValueError(
        f"params have {path} of shape {list(leaves[path].shape)}; the config "
        f"implies {list(wanted[path].shape)}"
      )
    result.append(
      TensorToWrite(
        name if part is None else name.removeprefix(f"{part}."),
        shape,
        np.dtype(leaves[path].dtype),
        lambda pieces=pieces: _assemble(pieces, leaves, as_they_are),
      )
    )
  return result + derived_tensors.tensors_to_write(config, leaves, part)


def _assemble(
  pieces: list[TensorMapping],
  leaves: Mapping[str, Any],
  as_they_are: Mapping[Any, np.ndarray],
) -> np.ndarray:
  if pieces[0].piece in as_they_are:
    array, dtype = as_they_are[pieces[0].piece], leaves[pieces[0].path].dtype
    return array.astype(dtype, copy=False)
  parts = [m.to_hub(np.asarray(leaves[m.path])) for m in pieces]
  return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def tree_from_hub(
  config: EncDecConfig, tensors: Tensors
) -> tuple[Params, LoadingReport]:
  """A whole pair's tensors, such as a state_dict in numpy, as a tree.

  Raises:
    LoadingError: they are not exactly those of the pair; tied names and
      buffers may be there.
  """
  module = FlaxEncoderDecoderModule(config)
  given = Checkpoint(tensors, "the given tensors")
  tree, report = load(module, [given], jax.random.key(0))
  if report.initialised:
    raise LoadingError(f"{given.where} lack {few(report.initialised)}")
  return tree, report


def hub_from_tree(
  config: EncDecConfig, params: Params
) -> Iterator[tuple[str, np.ndarray]]:
  """Name and tensor as in PyTorch's file, without tied heads."""
  for tensor in tensors_to_write(config, params):
    yield tensor.name, tensor.make()
