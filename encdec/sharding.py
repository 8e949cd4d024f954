"""Sharding: path -> logical axes -> axes of the mesh, and a strict resolver.

Two tables decide where a parameter lies. The first is here and says what each
axis of a leaf means; the second is a value of the configuration (`Rules`) and
says over which axes of the mesh that meaning is split. Flax's resolver
replicates silently what it cannot split, and so does
`jax.lax.with_sharding_constraint`: here both are errors, before anything
compiles.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

Axes = tuple[str | None, ...]

MESH_AXES = ("slice", "data", "fsdp", "tensor")
LOGICAL_AXES = (
  "batch",
  "sequence",
  "vocab",
  "embed",
  "heads",
  "kv_heads",
  "head_width",
  "mlp",
  "logits",
  "layers",
  "norm",
)

_SIDE = r"(encoder|decoder)"
_ATTENTION = rf"{_SIDE}/layers/(self|cross)_attention"
_DENSE = (
  rf"({_SIDE}/(embeddings/projection|pooler|head/transform)|enc_to_dec_proj)"
)
_MLP = rf"{_SIDE}/layers/mlp"
# A number for each column of a kernel.
_COLUMN = "(bias|dora_magnitude)"

# No table is split over vocabulary and width at once: XLA then rematerialises
# the lookup's operand in full. Norms, biases and small tables are replicated.
PARAMETER_RULES: tuple[tuple[str, Axes], ...] = (
  (rf"{_SIDE}/embeddings/tokens/embedding", ("vocab", None)),
  (rf"{_SIDE}/embeddings/(positions|types)/embedding", (None, None)),
  (rf"{_DENSE}/kernel", ("embed", None)),
  (rf"{_DENSE}/bias", ("norm",)),
  (
    rf"{_SIDE}/(embeddings/norm|final_norm|head/norm)/(scale|bias)",
    ("norm",),
  ),
  (rf"{_SIDE}/head/kernel", (None, "vocab")),
  (rf"{_SIDE}/head/bias", ("logits",)),
  (rf"{_ATTENTION}/query/kernel", ("layers", "embed", "heads", "head_width")),
  (
    rf"{_ATTENTION}/(key|value)/kernel",
    ("layers", "embed", "kv_heads", "head_width"),
  ),
  (rf"{_ATTENTION}/query/{_COLUMN}", ("layers", "heads", "head_width")),
  (
    rf"{_ATTENTION}/(key|value)/{_COLUMN}",
    ("layers", "kv_heads", "head_width"),
  ),
  (rf"{_ATTENTION}/out/kernel", ("layers", "heads", "head_width", "embed")),
  (rf"{_MLP}/(up|gate)/kernel", ("layers", "embed", "mlp")),
  (rf"{_MLP}/(up|gate)/{_COLUMN}", ("layers", "mlp")),
  (rf"{_MLP}/down/kernel", ("layers", "mlp", "embed")),
  (rf"({_ATTENTION}/out|{_MLP}/down)/{_COLUMN}", ("layers", "norm")),
  (
    rf"{_SIDE}/layers/(self_attention|cross_attention|mlp)_norm/(scale|bias)",
    ("layers", "norm"),
  ),
  # Adapters: as the kernel's inputs, and as its outputs.
  (
    rf"({_ATTENTION}/(query|key|value)|{_MLP}/(up|gate))/lora_a",
    ("layers", "embed", None),
  ),
  (rf"{_ATTENTION}/out/lora_a", ("layers", "heads", "head_width", None)),
  (rf"{_MLP}/down/lora_a", ("layers", "mlp", None)),
  (rf"{_ATTENTION}/query/lora_b", ("layers", None, "heads", "head_width")),
  (
    rf"{_ATTENTION}/(key|value)/lora_b",
    ("layers", None, "kv_heads", "head_width"),
  ),
  (rf"{_MLP}/(up|gate)/lora_b", ("layers", None, "mlp")),
  (rf"({_ATTENTION}/out|{_MLP}/down)/lora_b", ("layers", None, "embed")),
)


@dataclasses.dataclass(frozen=True)
class Rules:
  """Logical axis -> axes of the mesh. Frozen and hashable: it is handed down.

  Raises ValueError for an unknown, missing or doubled axis, by name.
  """

  table: tuple[tuple[str, tuple[str, ...]], ...]

  def __post_init__(self):
    names = [name for name, _ in self.table]
    unknown = sorted(set(names) - set(LOGICAL_AXES))
    if unknown:
      raise ValueError(
        f"sharding.{unknown[0]}: no such logical axis; there are "
        f"{', '.join(LOGICAL_AXES)}"
      )
    missing = [name for name in LOGICAL_AXES if name not in names]
    if missing:
      raise ValueError(
        f"sharding.{missing[0]} is missing; give the axes of the mesh over "
        "which it is split, or () to replicate it"
      )
    for name, mesh_axes in self.table:
      for axis in mesh_axes:
        if axis not in MESH_AXES:
          raise ValueError(
            f"sharding.{name}={mesh_axes!r}: {axis!r} is no axis of the mesh; "
            f"there are {', '.join(MESH_AXES)}"
          )
      if len(set(mesh_axes)) < len(mesh_axes):
        raise ValueError(
          f"sharding.{name}={mesh_axes!r} names an axis twice; name it once"
        )

  @classmethod
  def from_mapping(cls, mapping: Mapping[str, Sequence[str]]) -> "Rules":
    """Rules of a plain mapping (the section `sharding` of a config)."""
    for name, mesh_axes in mapping.items():
      if isinstance(mesh_axes, str):
        raise ValueError(
          f"sharding.{name}={mesh_axes!r} is a string; write the tuple "
          f"({mesh_axes!r},)"
        )
    return cls(tuple(sorted((k, tuple(v)) for k, v in mapping.items())))

  def mesh_axes(self, logical: str | None) -> tuple[str, ...]:
    """Axes of the mesh that split `logical`; () for None."""
    if logical is None:
      return ()
    for name, mesh_axes in self.table:
      if name == logical:
        return mesh_axes
    raise ValueError(
      f"unknown logical axis {logical!r}; there are {', '.join(LOGICAL_AXES)}"
    )


DEFAULT_RULES = Rules.from_mapping(
  {
    "batch": ("slice", "data", "fsdp"),
    "sequence": (),
    "vocab": ("fsdp", "tensor"),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_width": (),
    "mlp": ("tensor",),
    "logits": ("tensor",),
    "layers": (),
    "norm": (),
  }
)


def logical_axes(path: str) -> Axes:
  """Logical axes of the parameter at `path` ("encoder/layers/mlp/up/kernel").

  Raises ValueError unless exactly one rule matches.
  """
  matches = [axes for rule, axes in PARAMETER_RULES if re.fullmatch(rule, path)]
  if len(matches) != 1:
    raise ValueError(
      f"parameter {path!r} matches {len(matches)} rules of "
      "encdec.sharding.PARAMETER_RULES; it must match exactly one"
    )
  return matches[0]


def resolve(
  what: str,
  shape: Sequence[int],
  axes: Axes,
  rules: Rules,
  mesh: Mesh | AbstractMesh,
) -> PartitionSpec:
  """The PartitionSpec of an array with these logical axes; `what` names it.

  Raises ValueError for a wrong rank, an unknown axis, an axis of the mesh used
  twice, and a dimension that the mesh does not divide (with legal sizes).
  """
  if len(shape) != len(axes):
    raise ValueError(
      f"{what}: shape {tuple(shape)} has {len(shape)} dimensions, its logical "
      f"axes {axes} are {len(axes)}"
    )
  entries = []
  used: dict[str, str] = {}
  for size, logical in zip(shape, axes, strict=True):
    mesh_axes = rules.mesh_axes(logical)
    for axis in mesh_axes:
      if axis not in mesh.shape:
        raise ValueError(
          f"{what}: sharding.{logical} names {axis!r}, but the mesh has the "
          f"axes {', '.join(mesh.shape)}"
        )
      if axis in used:
        raise ValueError(
          f"{what}: sharding.{used[axis]} and sharding.{logical} both split "
          f"over {axis!r}; an array can use an axis of the mesh once"
        )
      used[axis] = str(logical)
    parts = math.prod(mesh.shape[axis] for axis in mesh_axes)
    if size % parts:
      raise ValueError(_indivisible(what, size, str(logical), mesh_axes, mesh))
    entries.append(mesh_axes or None)
  return PartitionSpec(*entries)


def _indivisible(
  what: str,
  size: int,
  logical: str,
  mesh_axes: tuple[str, ...],
  mesh: Mesh | AbstractMesh,
) -> str:
  parts = math.prod(mesh.shape[axis] for axis in mesh_axes)
  devices = math.prod(mesh.shape.values())
  legal = [n for n in range(1, devices + 1) if size % n == 0]
  product = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in mesh_axes)
  return (
    f"{what}: {logical!r} has size {size}, which {product} does not divide. "
    f"Legal sizes of {' x '.join(f'mesh.{a}' for a in mesh_axes)}: "
    f"{', '.join(map(str, legal))}; legal sizes of {logical!r}: multiples of "
    f"{parts} (the next is {-(-size // parts) * parts})"
  )


def leaf_path(path: Sequence[Any]) -> str:
  """A key path of `jax.tree_util`, written "encoder/layers/mlp/up/kernel"."""
  return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def param_specs(shapes: Any, rules: Rules, mesh: Mesh) -> Any:
  """A NamedSharding for every leaf of a parameter tree (shapes or arrays).

  Raises ValueError, naming the leaf, where a leaf has no rule or two, or a
  dimension is not divisible.
  """

  def spec(path, leaf):
    name = leaf_path(path)
    return NamedSharding(
      mesh, resolve(name, leaf.shape, logical_axes(name), rules, mesh)
    )

  return jax.tree_util.tree_map_with_path(spec, shapes)


def constrain(
  x: Shaped[Array, "*shape"], axes: Axes, rules: Rules | None
) -> Shaped[Array, "*shape"]:
  """Lays activation `x` out by its logical axes; None replicates an axis.

  For traced code. The identity without rules or outside `jax.set_mesh`.

  Raises:
    ValueError: the mesh does not divide a dimension.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if rules is None or mesh.empty:
    return x
  spec = resolve(f"activation {axes}", x.shape, axes, rules, mesh)
  return jax.lax.with_sharding_constraint(x, spec)


def shards(logical: str, rules: Rules | None) -> int:
  """Parts into which `logical` is split; 1 without rules or a mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  if rules is None or mesh.empty:
    return 1
  return math.prod(mesh.shape[axis] for axis in rules.mesh_axes(logical))


def by_shard(
  function: Callable[..., Any],
  arguments: tuple[Any, ...],
  axes: tuple[Any, ...],
  out_axes: Any,
  rules: Rules | None,
) -> Any:
  """`function(*arguments)`, of the part of them that each device holds.

  For what the compiler would gather for. Without rules or a mesh it is a
  plain call.

  Args:
    axes: the logical axes of each leaf, or of all leaves below; axes that are
      left out at the end are whole on every device.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if rules is None or mesh.empty:
    return function(*arguments)

  def spec(axes: Axes) -> PartitionSpec:
    return PartitionSpec(*(rules.mesh_axes(axis) or None for axis in axes))

  def specs(tree: Any) -> Any:
    return jax.tree.map(spec, tree, is_leaf=_is_axes)

  return jax.shard_map(
    function, in_specs=specs(axes), out_specs=specs(out_axes), check_vma=False
  )(*arguments)


def _is_axes(tree: Any) -> bool:
  return isinstance(tree, tuple) and all(
    axis is None or isinstance(axis, str) for axis in tree
  )


def by_rows(
  function: Callable[[Any, Any], Any],
  rows: Any,
  shared: Any,
  rules: Rules | None,
) -> Any:
  """`function(rows, shared)`, of each device's own rows of the batch.

  The results have a leading batch axis, as all of `rows`; `shared` is whole on
  every device.
  """
  batch = ("batch",)
  return by_shard(function, (rows, shared), (batch, ()), batch, rules)
