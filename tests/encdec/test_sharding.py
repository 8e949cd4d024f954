"""The strict resolver: nothing is replicated by silence."""

import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

from encdec import sharding
from encdec.sharding import DEFAULT_RULES, MESH_AXES, Rules

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/layout.txt"


def mesh_of(*sizes: int) -> Mesh:
  return jax.make_mesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 4)


def table_of(**changes) -> dict:
  return dict(DEFAULT_RULES.table) | changes


def leaf(*shape: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.fixture(scope="module")
def layout():
  """The module that writes the golden file."""
  sys.path.insert(0, str(GOLDEN.parent))
  try:
    import layout
  finally:
    sys.path.remove(str(GOLDEN.parent))
  return layout


def test_layout_of_every_architecture_is_the_golden_one(layout):
  assert layout.render() == GOLDEN.read_text(), (
    "the layout of a parameter tree changed: checkpoints of old runs no longer "
    "fit. If that is meant, raise the checkpoint's format number and run\n"
    "  python tests/golden/layout.py"
  )


def test_every_rule_serves_some_architecture():
  paths = [line.split(" ")[0] for line in GOLDEN.read_text().splitlines()]
  for rule, _ in sharding.PARAMETER_RULES:
    # A declared fact that none of these architectures has yet.
    rule = rule.replace("gate|", "")
    assert any(re.fullmatch(rule, path) for path in paths), rule


def test_specs_follow_the_two_tables():
  specs = sharding.param_specs(
    {
      "encoder": {
        "embeddings": {"tokens": {"embedding": leaf(16, 6)}},
        "layers": {"self_attention": {"query": {"kernel": leaf(2, 6, 4, 5)}}},
      }
    },
    DEFAULT_RULES,
    mesh_of(1, 2, 2, 2),
  )
  side = specs["encoder"]
  assert side["embeddings"]["tokens"]["embedding"].spec == PartitionSpec(
    ("fsdp", "tensor"), None
  )
  kernel = side["layers"]["self_attention"]["query"]["kernel"]
  assert kernel.spec == PartitionSpec(None, ("fsdp",), ("tensor",), None)
  assert kernel.shard_shape((2, 6, 4, 5)) == (2, 3, 2, 5)


def test_an_indivisible_dimension_names_leaf_and_legal_sizes():
  shapes = {"decoder": {"layers": {"mlp": {"up": {"bias": leaf(2, 12)}}}}}
  with pytest.raises(ValueError) as error:
    sharding.param_specs(shapes, DEFAULT_RULES, mesh_of(1, 1, 1, 8))
  message = str(error.value)
  assert "decoder/layers/mlp/up/bias" in message
  assert "'mlp' has size 12" in message and "tensor=8" in message
  assert "Legal sizes of mesh.tensor: 1, 2, 3, 4, 6;" in message
  assert "multiples of 8 (the next is 16)" in message


@pytest.mark.parametrize(
  "path", ["decoder/layers/mlp/upp/bias", "decoder/adapter/kernel", "head/bias"]
)
def test_an_unmatched_leaf_raises_by_name(path):
  with pytest.raises(ValueError, match=f"'{path}' matches 0 rules"):
    sharding.logical_axes(path)


def test_a_leaf_of_two_rules_raises_by_name(monkeypatch):
  monkeypatch.setattr(
    sharding,
    "PARAMETER_RULES",
    (*sharding.PARAMETER_RULES, (r"decoder/head/.*", ("norm",))),
  )
  with pytest.raises(ValueError, match="'decoder/head/bias' matches 2 rules"):
    sharding.logical_axes("decoder/head/bias")


def test_a_leaf_of_another_rank_raises():
  shapes = {"decoder": {"head": {"bias": leaf(8, 8)}}}
  with pytest.raises(ValueError, match="decoder/head/bias: shape"):
    sharding.param_specs(shapes, DEFAULT_RULES, mesh_of(1, 8, 1, 1))


@pytest.mark.parametrize(
  ("table", "message"),
  [
    (table_of(mpl=()), "sharding.mpl: no such logical axis"),
    (table_of(mlp=("tensr",)), "sharding.mlp=.*'tensr' is no axis of the mesh"),
    (table_of(mlp="tensor"), "sharding.mlp='tensor' is a string"),
    (table_of(mlp=("tensor", "tensor")), "sharding.mlp=.*names an axis twice"),
    (
      {k: v for k, v in table_of().items() if k != "mlp"},
      "sharding.mlp is missing",
    ),
  ],
)
def test_wrong_rules_are_refused_by_name(table, message):
  with pytest.raises(ValueError, match=message):
    Rules.from_mapping(table)


def test_an_axis_of_the_mesh_used_twice_in_an_array_raises():
  rules = Rules.from_mapping(table_of(mlp=("fsdp",)))
  shapes = {"encoder": {"layers": {"mlp": {"up": {"kernel": leaf(2, 8, 8)}}}}}
  with pytest.raises(
    ValueError, match=r"sharding\.embed and sharding\.mlp both"
  ):
    sharding.param_specs(shapes, rules, mesh_of(1, 4, 2, 1))


def test_rules_are_a_value():
  again = Rules.from_mapping(dict(reversed(list(DEFAULT_RULES.table))))
  assert again == DEFAULT_RULES and hash(again) == hash(DEFAULT_RULES)
  assert Rules.from_mapping(table_of(vocab=())) != DEFAULT_RULES


def test_constrain_lays_out_and_is_the_identity_without_mesh_or_rules():
  x = jnp.zeros((8, 3, 4))

  def laid(rules):
    @jax.jit
    def constrain(x):
      return sharding.constrain(x, ("batch", None, "mlp"), rules)

    return constrain(x).sharding

  assert laid(DEFAULT_RULES).num_devices == 1
  with jax.set_mesh(mesh_of(1, 2, 2, 2)):
    assert laid(None).is_fully_replicated
    where = laid(DEFAULT_RULES)
  assert where.shard_shape(x.shape) == (2, 3, 2)


def test_constrain_refuses_what_jax_would_replicate():
  mesh = mesh_of(1, 8, 1, 1)

  def constrain(x):
    return sharding.constrain(x, ("batch", None), DEFAULT_RULES)

  with (
    jax.set_mesh(mesh),
    pytest.raises(ValueError, match=r"activation.*'batch' has size 6"),
  ):
    jax.eval_shape(constrain, leaf(6, 3))
