"""Collectives of a program: their bytes, and the axes that they go over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from train.costs import hlo
from train.costs.collectives import Collective, collectives

AXES = ("slice", "data", "fsdp", "tensor")


@pytest.fixture(scope="module")
def mesh():
  devices = np.asarray(jax.devices()).reshape(1, 2, 2, 2)
  return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 4)


def found(mesh, function, specs, out, *shapes):
  given = [
    jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
    for shape, spec in zip(shapes, specs, strict=True)
  ]
  jitted = jax.jit(function, out_shardings=NamedSharding(mesh, out))
  text = jitted.lower(*given).compile().as_text()
  return collectives(hlo.parse(text), mesh)


@pytest.mark.parametrize("axes", [("data",), ("fsdp",), ("data", "tensor")])
def test_a_sum_over_axes_is_one_reduction_of_its_bytes(mesh, axes):
  (one,) = found(mesh, lambda x: x.sum(0), [P(axes)], P(), (8, 100))
  assert one == Collective("all-reduce", axes, 2 ** len(axes), 1, 400)
  assert one.sent == pytest.approx(2 * 400 * (1 - 0.5 ** len(axes)))


def test_a_gather_has_the_bytes_that_it_makes(mesh):
  (one,) = found(mesh, lambda x: x * 2.0, [P("fsdp")], P(), (8, 100))
  assert one == Collective("all-gather", ("fsdp",), 2, 1, 3200)
  assert one.sent == 1600


def test_what_is_scanned_counts_with_its_trips(mesh):
  def function(x, w):
    def body(c, layer):
      whole = NamedSharding(mesh, P())
      layer = jax.lax.with_sharding_constraint(layer, whole)
      return jnp.tanh(c @ layer), None

    return jax.lax.scan(body, x, w)[0]

  listed = found(
    mesh,
    function,
    [P("data"), P(None, "fsdp")],
    P("data"),
    (4, 16),
    (5, 16, 16),
  )
  assert [one.axes for one in listed] == [("fsdp",)] * len(listed)
  assert {one.count for one in listed} == {5}


def test_nothing_is_said_of_a_program_on_one_device(mesh):
  text = jax.jit(jnp.sin).lower(jnp.ones(3)).compile().as_text()
  assert collectives(hlo.parse(text), mesh) == []


GROUPS = [
  "replica_groups={{0,1},{2,3},{4,5},{6,7}}",
  "replica_groups=[4,2]<=[8]",
  "replica_groups=mesh['x'=4,'y'=2] {'y'}",
  "replica_groups=mesh['x'=4,'y'=2], device_ids=([8]) {'y'}",
]
OTHER_GROUPS = [
  "replica_groups={{0,4},{1,5},{2,6},{3,7}}",
  "replica_groups=[4,2]<=[2,4]T(1,0)",
  "replica_groups=mesh['x'=2,'y'=4] {'x'}",
  "replica_groups=mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'y'}",
]


@pytest.mark.parametrize("written", GROUPS)
@pytest.mark.parametrize("other", OTHER_GROUPS)
def test_groups_are_read_in_every_form(mesh, written, other):
  text = f"""
ENTRY %main (a: f32[2]) -> f32[2] {{
  %a = f32[2]{{0}} parameter(0)
  %b = f32[2]{{0}} all-reduce(%a), channel_id=1, {written}, to_apply=%add
  ROOT %c = f32[2]{{0}} all-reduce(%b), channel_id=2, {other}, to_apply=%add
}}
"""
  listed = collectives(hlo.parse(text), mesh)
  assert [one.axes for one in listed] == [("data",), ("tensor",)]
  assert [one.members for one in listed] == [(0, 4), (0, 1)]


def test_one_that_runs_beside_work_is_one(mesh):
  """It begins in one fusion and ends in another, by one channel."""
  gather = (
    "all-gather(%p), channel_id=7, replica_groups={{0,1},{2,3},{4,5},{6,7}}"
  )
  text = f"""
%begun (p: f32[2]) -> f32[4] {{
  %p = f32[2]{{0}} parameter(0)
  ROOT %g = f32[4]{{0}} {gather}
}}

%all-reduce-scatter.1 (p: f32[4]) -> f32[2] {{
  %p = f32[4]{{0}} parameter(0)
  %r = f32[4]{{0}} all-reduce(%p), channel_id=8, replica_groups=[4,2]<=[8]
  ROOT %s = f32[2]{{0}} slice(%r), slice={{[0:2]}}
}}

ENTRY %main (a: f32[2]) -> f32[2] {{
  %a = f32[2]{{0}} parameter(0)
  %b = f32[4]{{0}} fusion(%a), kind=kCustom, calls=%begun
  %c = f32[4]{{0}} fusion(%a), kind=kCustom, calls=%begun
  ROOT %d = f32[2]{{0}} fusion(%c), kind=kCustom, calls=%all-reduce-scatter.1
}}
"""
  assert collectives(hlo.parse(text), mesh) == [
    Collective("all-gather", ("tensor",), 2, 1, 16),
    Collective("reduce-scatter", ("tensor",), 2, 1, 16),
  ]


@pytest.mark.parametrize(
  "call",
  [
    "((f32[4]{0}), f32[2]{0}) reduce-scatter-start(%a), channel_id=1, GROUPS",
    "f32[2]{0} reduce-scatter(%a), channel_id=1, GROUPS",
    "((f32[4]{0}), f32[2]{0}) async-start(%a), calls=%side",
  ],
)
def test_a_scatter_has_the_bytes_that_it_starts_from(mesh, call):
  text = f"""
%side (p: f32[4]) -> f32[2] {{
  %p = f32[4]{{0}} parameter(0)
  ROOT %r = f32[2]{{0}} reduce-scatter(%p), channel_id=1, GROUPS
}}

ENTRY %main (a: f32[4]) -> f32[4] {{
  %a = f32[4]{{0}} parameter(0)
  %s = {call}
}}
""".replace("GROUPS", "replica_groups=[4,2]<=[8]")
  assert collectives(hlo.parse(text), mesh) == [
    Collective("reduce-scatter", ("tensor",), 2, 1, 16)
  ]


def test_two_of_one_channel_are_two(mesh):
  """A TPU's program may use a channel again, and a host's transfer too."""
  text = """
ENTRY %main (a: f32[2], b: f32[2]) -> f32[4] {
  %a = f32[2]{0} parameter(0)
  %b = f32[2]{0} parameter(1)
  %c = f32[4]{0} all-gather(%a), channel_id=7, replica_groups=[4,2]<=[8]
  ROOT %d = f32[4]{0} all-gather(%b), channel_id=7, replica_groups=[4,2]<=[8]
}
"""
  (one,) = collectives(hlo.parse(text), mesh)
  assert (one.count, one.bytes) == (2, 2 * 16)


def test_one_that_is_started_counts_where_it_is_started(mesh):
  """Its steps stand beside other work, in a loop that runs three times."""
  text = """
%begun (p: f32[2]) -> f32[4] {
  %p = f32[2]{0} parameter(0)
  ROOT %g.1 = f32[4]{0} all-gather(%p), channel_id=7, GROUPS
}

%beside (q: f32[2]) -> f32[4] {
  %q = f32[2]{0} parameter(0)
  ROOT %g.2 = f32[4]{0} all-gather(%q), channel_id=7, GROUPS
}

%goes_on (s: (s32[], f32[2])) -> pred[] {
  %s = (s32[], f32[2]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %n = s32[] constant(3)
  ROOT %l = pred[] compare(%i, %n), direction=LT
}

%body (t: (s32[], f32[2])) -> (s32[], f32[2]) {
  %t = (s32[], f32[2]{0}) parameter(0)
  %j = s32[] get-tuple-element(%t), index=0
  %x = f32[2]{0} get-tuple-element(%t), index=1
  %f = f32[4]{0} fusion(%x), kind=kCustom, calls=%beside
  %one = s32[] constant(1)
  %next = s32[] add(%j, %one)
  ROOT %u = (s32[], f32[2]{0}) tuple(%next, %x)
}

ENTRY %main (a: f32[2]) -> (s32[], f32[2]) {
  %a = f32[2]{0} parameter(0)
  %async-collective-start = f32[4]{0} fusion(%a), kind=kCustom, calls=%begun
  %zero = s32[] constant(0)
  %v = (s32[], f32[2]{0}) tuple(%zero, %a)
  ROOT %w = (s32[], f32[2]{0}) while(%v), condition=%goes_on, body=%body
}
""".replace("GROUPS", "replica_groups=[4,2]<=[8]")
  (one,) = collectives(hlo.parse(text), mesh)
  assert (one.count, one.bytes) == (1, 16)
  (each,) = collectives(
    hlo.parse(text.replace("async-collective-start", "other")), mesh
  )
  assert (each.count, each.bytes) == (4, 64)


@pytest.mark.parametrize(
  ("transfer", "kind", "size"),
  [
    ("ALL_REDUCE", "all-reduce", 4000),
    ("REDUCE_SCATTER", "reduce-scatter", 4000),
    # Of both slices.
    ("ALL_GATHER", "all-gather", 8000),
    ("ONE_TO_ONE", "collective-permute", 4000),
  ],
)
def test_slices_exchange_by_their_hosts(mesh, transfer, kind, size):
  """As the program of a TPU of two slices of four chips says it."""
  attributes = (
    "is_host_transfer=true, frontend_attributes={"
    '_xla_host_transfer_handler_name="xla_megascale_runtime",'
    '_xla_megascale_target="{SLICES}x{0:3}",'
    f'_xla_megascale_transfer_type="{transfer}"}}'
  )
  text = f"""
ENTRY %main (a: f32[1000]) -> f32[1000] {{
  %a = f32[1000]{{0}} parameter(0)
  %t = token[] after-all()
  %s = (f32[1000]{{0}}, u32[], token[]) send(%a, %t), channel_id=2, {attributes}
  %r = (f32[1000]{{0}}, u32[], token[]) recv(%t), channel_id=1, {attributes}
  %x = token[] send-done(%s), channel_id=2, is_host_transfer=true
  ROOT %y = (f32[1000]{{0}}, token[]) recv-done(%r), channel_id=1
}}
"""
  for slices in ("1,2", "1:2"):
    program = hlo.parse(text.replace("SLICES", slices))
    assert collectives(program, mesh) == [
      Collective(kind, ("slice",), 2, 1, size)
    ]
