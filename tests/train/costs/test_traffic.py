"""The bytes that a program moves: slices, fusions, collectives beside work."""

import jax
import jax.numpy as jnp

from tests.train.costs.test_work import work_of
from train.costs import hlo
from train.costs.work import work


def test_what_is_moved_is_read_and_written():
  found = work_of(lambda x, y: jnp.tanh(x) + y, (1000,), (1000,))
  assert found.bytes == 3 * 4000
  assert sum(moved for _, moved in found.terms) == found.bytes


def test_a_slice_of_a_stack_is_not_the_stack():
  """Layers that are scanned are each read once."""

  def function(x, layers):
    return jax.lax.scan(lambda c, layer: (c @ layer, None), x, layers)[0]

  stack = 20 * 32 * 32 * 4
  found = work_of(function, (32, 32), (20, 32, 32))
  # A slice is made, and read by the product: never the whole of it each time.
  assert stack < found.bytes < 8 * stack


def test_a_fusion_in_a_fusion_reads_its_slice_alone():
  text = """
%inner (p: f32[9,8], i: s32[]) -> f32[1,8] {
  %p = f32[9,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %s = f32[1,8]{1,0} dynamic-slice(%p, %i, %i), dynamic_slice_sizes={1,8}
}

%outer (q: f32[9,8], j: s32[]) -> f32[1,8] {
  %q = f32[9,8]{1,0} parameter(0)
  %j = s32[] parameter(1)
  %same = f32[9,8]{1,0} bitcast(%q)
  %f = f32[1,8]{1,0} fusion(%same, %j), kind=kLoop, calls=%inner
  ROOT %n = f32[1,8]{1,0} negate(%f)
}

ENTRY %main (a: f32[9,8], k: s32[]) -> f32[1,8] {
  %a = f32[9,8]{1,0} parameter(0)
  %k = s32[] parameter(1)
  ROOT %o = f32[1,8]{1,0} fusion(%a, %k), kind=kOutput, calls=%outer
}
"""
  row, index = 4 * 8, 4
  assert work(hlo.parse(text)).bytes == row + index + row
  whole = text.replace("negate(%f)", "reduce(%f, %q)")
  assert work(hlo.parse(whole)).bytes == 9 * row + index + row


def test_what_a_collective_holds_beside_other_work_is_not_moved():
  """It is handed on from a fusion to the next, and read by none."""
  text = """
%beside (p: f32[4,8], q: f32[16,8], r: f32[8]) -> (f32[8], f32[16,8]) {
  %p = f32[4,8]{1,0} parameter(0)
  %q = f32[16,8]{1,0} parameter(1)
  %r = f32[8]{0} parameter(2)
  %n = f32[8]{0} negate(%r)
  %g = f32[16,8]{1,0} all-gather(%p), channel_id=1, dimensions={0}
  ROOT %t = (f32[8]{0}, f32[4,8]{1,0}, f32[16,8]{1,0}) tuple(%n, %p, %q)
}

ENTRY %main (a: f32[4,8], b: f32[16,8], c: f32[8]) -> (f32[8], f32[16,8]) {
  %a = f32[4,8]{1,0} parameter(0)
  %b = f32[16,8]{1,0} parameter(1)
  %c = f32[8]{0} parameter(2)
  ROOT %f = (f32[8]{0}, f32[4,8]{1,0}, f32[16,8]{1,0}) fusion(%a, %b, %c), kind=kOutput, output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {})}, calls=%beside
}
"""  # noqa: E501
  row = 4 * 8
  assert work(hlo.parse(text)).bytes == 2 * row
  held = 4 * row + 16 * row
  alone = text.replace("all-gather(%p)", "broadcast(%p)")
  assert work(hlo.parse(alone)).bytes == 2 * row + 2 * held
