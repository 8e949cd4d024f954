"""The settings of a run that are fastest among those that fit a chip."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import logging

from encdec.model import FlaxEncoderDecoderModule
from train.config import Config
from train.costs import ahead
from train.costs.program_costs import ProgramCosts
from train.mesh import MeshConfig, make_mesh

Shape = tuple[int, int]
# Of a chip's memory, what a program may be planned to take.
MOST = 0.95
# From what keeps most to what keeps least: the first that fits is fastest.
REMATS = (
  "none",
  "qkv+ctx+out+mlp",
  "qkv+ctx+out",
  "ctx+out",
  "ctx",
  "full",
)
_LOSS_CHUNKS = (1, 4)


@dataclasses.dataclass(frozen=True)
class Trial:
  """Settings, as overrides of the configuration, and what they cost.

  Attributes:
    rows: of a batch; a row is a pair unless packed.
    costs: None where there is no program, for `reason`.
    is_refused: no recomputation would help.
  """

  overrides: tuple[tuple[str, int | str], ...]
  rows: int
  costs: ProgramCosts | None
  reason: str = ""
  is_refused: bool = False

  @property
  def fits(self) -> bool:
    costs = self.costs
    if costs is None or costs.chip is None:
      return False
    return costs.memory.total <= MOST * costs.chip.memory

  @property
  def rows_per_second(self) -> float:
    if self.costs is None or self.costs.roofline is None:
      return 0.0
    return self.rows / self.costs.roofline.seconds


def search(
  config: Config,
  module: FlaxEncoderDecoderModule,
  devices: Sequence[Any],
  shape: Shape,
) -> list[Trial]:
  """Compiles what may be fastest; those that fit first, fastest first.

  Of each mesh, number of rows and loss chunks the remat policies are tried
  from the one that recomputes least, until one fits.
  """
  tried: list[Trial] = []
  for mesh, rows, chunks in _settings(config, len(devices)):
    for remat in REMATS:
      one = _try(config, module, devices, shape, mesh, rows, chunks, remat)
      tried.append(one)
      logging.info("%s", describe(one))
      if one.fits or one.is_refused:
        break
  return sorted(tried, key=lambda one: (not one.fits, -one.rows_per_second))


def _settings(
  config: Config, devices: int
) -> Iterator[tuple[MeshConfig, int, int]]:
  """Meshes of plain and fully sharded data parallelism, rows, loss chunks.

  `mesh.slice` and `mesh.tensor` stay as they are.
  """
  slices, tensor = config.mesh.slice, max(1, config.mesh.tensor)
  shards = devices // tensor
  per_slice = shards // slices
  meshes = [MeshConfig(slices, per_slice, 1, tensor)]
  if per_slice > 1:
    meshes.append(MeshConfig(slices, 1, per_slice, tensor))
  if per_slice > 8:
    meshes.append(MeshConfig(slices, per_slice // 8, 8, tensor))
  rows = config.train.batch_size
  batches = sorted({max(shards, n) for n in (rows, 2 * rows, rows // 2)})
  batches = [n for n in batches if n % shards == 0]
  return itertools.product(meshes, batches, _LOSS_CHUNKS)


def _try(
  config: Config,
  module: FlaxEncoderDecoderModule,
  devices: Sequence[Any],
  shape: Shape,
  sizes: MeshConfig,
  rows: int,
  chunks: int,
  remat: str,
) -> Trial:
  overrides: dict[str, int | str] = {
    "train.batch_size": rows,
    "train.loss_chunks": chunks,
    "model.remat": remat,
    **{f"mesh.{axis}": n for axis, n in dataclasses.asdict(sizes).items()},
  }
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(overrides)
  settings = tuple(overrides.items())
  try:
    mesh = make_mesh(sizes, devices)
    found = ahead.compile_step(config, module.clone(remat=remat), mesh, shape)
  except (ValueError, jax.errors.JaxRuntimeError) as error:
    # A compiler's own failure ends one try, not all. And more recomputation
    # helps against a lack of memory alone.
    is_refused = "of a device's memory" not in str(error)
    return Trial(settings, rows, None, str(error), is_refused=is_refused)
  return Trial(settings, rows, found.costs)


def describe(tried: Trial) -> str:
  """The settings as flags, and what came out."""
  flags = " ".join(f"--config.{key}={value}" for key, value in tried.overrides)
  if tried.costs is None:
    return f"refused ({tried.reason.splitlines()[0][:80]}): {flags}"
  memory = tried.costs.memory.total / 1e9
  fits = "" if tried.fits else ", does not fit"
  return f"{memory:.2f} GB{fits}, {tried.rows_per_second:.4g} rows/s: {flags}"


def table(tried: Sequence[Trial]) -> str:
  """One line each."""
  return "\n".join(describe(one) for one in tried)
