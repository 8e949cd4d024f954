"""Arrays on a mesh with Explicit axes: computed, or refused in one sentence."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from encdec.explicit_axes import check
from encdec.generation.decode_params import unstack
from encdec.sharing import expand

ROWS = 4


@pytest.fixture(scope="module")
def ids():
  return np.random.default_rng(0).integers(5, 37, (ROWS, 6)).astype(np.int32)


def _mesh(*types):
  names = ("rows", "more")
  return jax.make_mesh(
    (2, 2), names, axis_types=types or None, devices=jax.devices()[:4]
  )


def _refused(name, axes="'rows'"):
  return pytest.raises(
    ValueError,
    match=rf"^{name} is split over {axes}, of type Explicit, which is JAX's "
    r"default; make the mesh by jax.make_mesh\(sizes, names, "
    r"axis_types=\(AxisType.Auto,\) \* 2\)(\n|$)",
  )


@pytest.fixture
def model(tiny):
  tiny.config.decoder_start_token_id, tiny.config.pad_token_id = 3, 0
  return tiny


def test_rows_on_an_explicit_mesh(model, ids):
  mesh = _mesh()
  assert mesh.axis_types == (AxisType.Explicit,) * 2
  split = jax.device_put(ids, NamedSharding(mesh, P("rows")))
  for entered in (False, True):
    with jax.set_mesh(mesh) if entered else contextlib.nullcontext():
      for call in (
        lambda: model(split, decoder_input_ids=ids),
        lambda: model.encode(split),
        lambda: model(split, labels=ids),
        lambda: jax.grad(
          lambda params: model(split, labels=ids, params=params).loss
        )(model.params),
        lambda: jax.jit(lambda i: model.encode(i).last_hidden_state)(split),
        lambda: model.generate(split, max_length=5),
        lambda: model.generate(split, max_length=5, num_beams=2),
      ):
        with _refused("input_ids"):
          call()
  with _refused("decoder_input_ids"):
    model(ids, decoder_input_ids=split)
  with _refused("labels"):
    model(ids, labels=split)
  with _refused("labels"):
    model(ids, decoder_input_ids=ids, labels=split)
  with _refused("the attention mask of input_ids"):
    model(ids, split, decoder_input_ids=ids)
  states = jax.device_put(
    model.encode(ids).last_hidden_state, NamedSharding(mesh, P("rows"))
  )
  for call in (
    lambda: model.decode(ids, (states,)),
    lambda: model.generate(encoder_outputs=(states,), max_length=5),
  ):
    with _refused("encoder_outputs"):
      call()


def test_parameters_on_an_explicit_mesh(model, ids):
  mesh = _mesh(AxisType.Auto, AxisType.Explicit)

  def place(path, leaf):
    wide = "mlp" in jax.tree_util.keystr(path) and leaf.shape[-1] % 2 == 0
    spec = P(*(None,) * (leaf.ndim - 1), "more") if wide else P()
    return jax.device_put(leaf, NamedSharding(mesh, spec))

  params = jax.tree_util.tree_map_with_path(place, model.params)
  name = r"params/\S*mlp\S*"
  for call in (
    lambda: model.encode(ids, params=params),
    lambda: model(ids, labels=ids, params=params),
    lambda: jax.grad(lambda p: model(ids, labels=ids, params=p).loss)(params),
    lambda: model.generate(ids, max_length=5, params=params),
    lambda: unstack(expand(params, model.module.config), model.module),
  ):
    with _refused(name, "'more'"):
      call()


@pytest.mark.sample(1, group="whole on every device")
@pytest.mark.parametrize("given", ["ids", "ids and params"])
def test_what_is_whole_on_every_device_is_computed(model, ids, given):
  mesh = _mesh()
  want = model(ids, labels=ids), model.generate(ids, max_length=5).sequences
  whole = jax.device_put(ids, NamedSharding(mesh, P()))
  params = jax.device_put(model.params, NamedSharding(mesh, P()))
  arguments = {} if given == "ids" else {"params": params}
  found = model(whole, labels=whole, **arguments)
  np.testing.assert_allclose(found.loss, want[0].loss, rtol=1e-6)
  found = model.generate(whole, max_length=5, **arguments).sequences
  np.testing.assert_array_equal(found, want[1])


@pytest.mark.sample(1, group="whole on every device")
def test_gradients_of_what_is_whole_are_computed(model, ids):
  mesh = _mesh()
  want = model(ids, labels=ids).loss
  params = jax.device_put(model.params, NamedSharding(mesh, P()))
  with jax.set_mesh(mesh):
    loss, grads = jax.value_and_grad(
      lambda params: model(ids, labels=ids, params=params).loss
    )(params)
  np.testing.assert_allclose(loss, want, rtol=1e-6)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_rows_on_an_auto_mesh_and_by_shard_map_are_computed(model, ids):
  want = model.encode(ids).last_hidden_state
  mesh = _mesh(AxisType.Auto, AxisType.Explicit)
  split = jax.device_put(ids, NamedSharding(mesh, P("rows")))
  np.testing.assert_allclose(
    model.encode(split).last_hidden_state, want, atol=1e-5
  )
  mesh = _mesh()
  with jax.set_mesh(mesh):
    split = jax.device_put(ids, NamedSharding(mesh, P(("rows", "more"))))
    encode = jax.shard_map(
      lambda ids: model.encode(ids).last_hidden_state,
      in_specs=P(("rows", "more")),
      out_specs=P(("rows", "more")),
      check_vma=False,
    )
    np.testing.assert_allclose(encode(split), want, atol=1e-5)


def test_numpy_and_nothing_lie_nowhere():
  check({"a": np.zeros(3), "b": None, "c": jnp.zeros(3), "d": 1})
