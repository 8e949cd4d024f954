"""The state of training: what a step takes, gives back, and a save holds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct, traverse_util
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jaxtyping import Array, Key

from encdec import adapters, sharding
from encdec.model import FlaxEncoderDecoderModule, init_params, param_shapes
from encdec.types import Params
from train.mesh import replicated
from train.optim import ema
from train.optim.matrices import statistic_spec
from train.optim.optimizer import Optimizer

TREES = ("params", "opt_state", "ema")
# Arrays of an optimizer's state that no parameter owns: coefficients of muon.
_CONSTANTS = ("ns_coeffs",)


@struct.dataclass
class TrainState:
  """Stored parameters and what the optimizer knows of them.

  `step` is the number of updates done, int32. `opt_state` covers the trained
  leaves alone (see `Optimizer.split`), in float32, and so does `ema`, their
  averages.
  """

  step: Any
  params: Any
  opt_state: Any
  ema: Any = None

  def trees(self) -> dict[str, Any]:
    """What a save holds besides the step, by name."""
    trees = {name: getattr(self, name) for name in TREES}
    return {name: tree for name, tree in trees.items() if tree is not None}


def abstract_state(
  module: FlaxEncoderDecoderModule,
  optimizer: Optimizer,
  mesh: Mesh,
  rules: sharding.Rules,
) -> TrainState:
  """The state as ShapeDtypeStructs with shardings; allocates nothing.

  Raises ValueError, naming the leaf, for whatever the tables cannot resolve.
  """
  params = param_shapes(module)
  specs = sharding.param_specs(params, rules, mesh)
  opt_state = jax.eval_shape(lambda: _init_moments(optimizer, _zeros(params)))
  average = None
  if optimizer.ema_decay:
    average = jax.eval_shape(ema.begin, optimizer.split(params)[0])
    average = jax.tree.map(_placed, average, optimizer.split(specs)[0])
  return TrainState(
    step=jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh)),
    params=jax.tree.map(_placed, params, specs),
    opt_state=_placed_moments(opt_state, params, specs, mesh),
    ema=average,
  )


def state_shardings(abstract: TrainState) -> TrainState:
  """The shardings of `abstract_state`, leaf by leaf."""
  return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def create_state(
  module: FlaxEncoderDecoderModule,
  optimizer: Optimizer,
  mesh: Mesh,
  rules: sharding.Rules,
  key: Key[Array, ""],
  params: Params | None = None,
) -> TrainState:
  """A state of step 0, made where it belongs: no device ever holds it whole.

  `params` are a host's tree to start from; without them the parameters are
  drawn from `key`, equal on every mesh.
  """
  abstract = abstract_state(module, optimizer, mesh, rules)
  shardings = state_shardings(abstract)
  made = create_params(module, abstract.params, key, params)
  moments = jax.jit(
    lambda params: _init_moments(optimizer, params),
    out_shardings=shardings.opt_state,
  )
  step = jax.jit(lambda: jnp.zeros((), jnp.int32), out_shardings=shardings.step)
  average = None
  if optimizer.ema_decay:
    begin = jax.jit(ema.begin, out_shardings=shardings.ema)
    average = begin(optimizer.split(made)[0])
  return TrainState(step(), made, moments(made), average)


def create_params(
  module: FlaxEncoderDecoderModule,
  abstract: Params,
  key: Key[Array, ""],
  params: Params | None,
) -> Params:
  """The parameters of step 0, where `abstract` has them.

  Args:
    params: see `create_state`; adapters are drawn beside them.
  """
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  if params is None:
    init = jax.jit(
      lambda key: init_params(module, key), out_shardings=shardings
    )
    return init(key)
  lora = module.config.lora
  if lora is None:
    return place_params(params, abstract)
  base = place_params(params, adapters.without(abstract))
  add = jax.jit(
    lambda base: adapters.add(base, lora, key),
    out_shardings=shardings,
    donate_argnums=0,
  )
  return add(base)


def place_params(params: Params, abstract: Params) -> Params:
  """A host's parameters on the devices, in the dtypes of `abstract`.

  Each device is sent its part alone. Raises ValueError, naming the leaf, where
  the trees differ in a path or a shape.
  """
  given: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
  wanted: dict[str, Any] = traverse_util.flatten_dict(abstract, sep="/")
  for path in sorted(set(given) ^ set(wanted)):
    where = "is missing from" if path in wanted else "is not the model's but in"
    raise ValueError(
      f"parameter {path!r} {where} the parameters to start from; they must "
      "have the tree of encdec.model.param_shapes(module)"
    )
  placed = {}
  for path, leaf in wanted.items():
    if np.shape(given[path]) != leaf.shape:
      raise ValueError(
        f"parameter {path!r} has the shape {np.shape(given[path])}, the model "
        f"wants {leaf.shape}; check that the weights are this model's"
      )
    placed[path] = _place(given[path], leaf)
  return traverse_util.unflatten_dict(placed, sep="/")


def _place(array: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
  array = np.asarray(array)
  return jax.make_array_from_callback(
    leaf.shape, leaf.sharding, lambda index: array[index].astype(leaf.dtype)
  )


def to_float32(params: Params) -> Params:
  """The view that the optimizer has of parameters stored in any dtype."""
  return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)


def _init_moments(optimizer: Optimizer, params: Params) -> Any:
  trained, _ = optimizer.split(params)
  return optimizer.tx.init(to_float32(trained))


def _zeros(shapes: Params) -> Params:
  return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _placed(
  leaf: jax.ShapeDtypeStruct, where: jax.sharding.Sharding
) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)


def _placed_moments(
  opt_state: Any, params: Params, specs: Params, mesh: Mesh
) -> Any:
  """A moment lies where its parameter does, a scalar everywhere.

  Raises ValueError for an array that is not a parameter's own statistic.
  """
  shapes: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
  where: dict[str, Any] = traverse_util.flatten_dict(specs, sep="/")

  def place(path, leaf):
    name = sharding.leaf_path(path)
    if leaf.ndim == 0 or name.endswith(_CONSTANTS):
      return _placed(leaf, replicated(mesh))
    owners = [p for p in shapes if name == p or name.endswith("/" + p)]
    # enc_to_dec_proj/kernel is not the end of any other path, nor vice versa.
    if len(owners) == 1:
      [path] = owners
      shape, own = shapes[path].shape, where[path]
      if leaf.shape == shape:
        return _placed(leaf, own)
      spec = statistic_spec(name, path, leaf.shape, shape, own.spec)
      if spec is not None:
        return _placed(leaf, NamedSharding(mesh, spec))
    raise ValueError(
      f"optimizer state {name!r} of shape {leaf.shape} is no statistic of a "
      "parameter, of its matrices, or of their rows or columns: its place on "
      "the mesh is unknown; choose another optim.name"
    )

  return jax.tree_util.tree_map_with_path(place, opt_state)


def tree_difference(name: str, saved: Any, wanted: Any) -> str | None:
  """The first leaf whose presence, dtype or shape differs, in words.

  Restoring would cast or cut it in silence.
  """
  have, want = _leaves(saved), _leaves(wanted)
  for path in sorted(have.keys() | want.keys()):
    if have.get(path) != want.get(path):
      return (
        f"{name}/{path} is {have.get(path, 'absent')} there and "
        f"{want.get(path, 'absent')} here"
      )
  return None


def _leaves(tree: Any) -> dict[str, str]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): (
      f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
    )
    for path, leaf in leaves
  }


def placed(leaf: Any) -> jax.ShapeDtypeStruct:
  """A leaf's shape with its sharding; the first device's where it has none."""
  sharding = leaf.sharding or SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
