"""Programs are read as they run: computations, loops with their trips."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest

from train.costs import hlo


def text_of(function, *shapes) -> str:
  given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return jax.jit(function).lower(*given).compile().as_text()


def scanned(length, x):
  return jax.lax.scan(lambda c, _: (jnp.tanh(c @ c), None), x, None, length)[0]


def without_stated_trips(text: str) -> str:
  """As a TPU's compiler writes it."""
  assert "known_trip_count" in text
  return re.sub(r'"known_trip_count":\{"n":"\d+"\},?', "", text)


@pytest.mark.parametrize("length", [3, 12])
def test_a_scan_has_its_trips(length):
  text = text_of(functools.partial(scanned, length), (8, 8))
  for written in (text, without_stated_trips(text)):
    (loop,) = hlo.parse(written).loops()
    assert loop.trips == length
    assert "while" in loop.op_name


def test_loops_in_loops_multiply():
  def nested(x):
    return jax.lax.scan(lambda c, _: (scanned(5, c), None), x, None, 7)[0]

  program = hlo.parse(text_of(nested, (8, 8)))
  assert sorted(loop.trips for loop in program.loops()) == [5, 7]
  assert max(times for _, times in program.executed()) == 35


def test_a_loop_that_ends_by_values_has_no_trips():
  def until(x):
    return jax.lax.while_loop(
      lambda c: jnp.sum(c) < 100.0, lambda c: c * 2.0 + 1.0, x
    )

  program = hlo.parse(text_of(until, (8,)))
  (loop,) = program.loops()
  assert loop.trips is None
  for unknown in (1, 9):
    assert max(n for _, n in program.executed(unknown)) == unknown


@pytest.mark.parametrize(
  ("step", "trips"),
  [
    (lambda i: i * 2, None),
    (lambda i: i + 1, 99),
    # As where the compiler unrolls a loop; the last one starts below the bound.
    (lambda i: i + 3, 33),
    (lambda i: i + 2, 50),
  ],
)
def test_a_loop_has_trips_where_its_counter_rises_by_a_constant(step, trips):
  def function(x):
    def body(carry):
      return step(carry[0]), jnp.tanh(carry[1] @ carry[1])

    return jax.lax.while_loop(lambda c: c[0] < 100, body, (1, x))[1]

  text = without_stated_trips(text_of(function, (8, 8)))
  (loop,) = hlo.parse(text).loops()
  assert loop.trips == trips


def test_a_bound_that_is_no_whole_number_gives_no_trips():
  def function(x):
    return jax.lax.while_loop(
      lambda c: c[0] < 1e9, lambda c: (c[0] + 1.0, jnp.tanh(c[1])), (0.0, x)
    )[1]

  (loop,) = hlo.parse(text_of(function, (8,))).loops()
  assert loop.trips is None


def test_a_computation_of_another_thread_ends_as_others_do():
  program = hlo.parse(
    "%other (p: f32[2]) -> f32[2] {\n"
    "  ROOT %p = f32[2]{0} parameter(0)\n"
    '}, execution_thread="host"\n'
    "\n"
    "ENTRY %main (a: f32[2]) -> f32[2] {\n"
    "  ROOT %a = f32[2]{0} parameter(0)\n"
    "}\n"
  )
  assert list(program.computations) == ["other", "main"]
  assert list(program.computations["other"].instructions) == ["p"]


def test_types_have_bytes_and_a_memory():
  (instruction,) = (
    hlo.parse(
      "ENTRY %main (a: f32[2]) -> f32[2] {\n"
      "  %pair = (bf16[4,8]{1,0:T(8,128)(2,1)S(1)}, pred[3]{0}, s32[]) "
      'copy-start(%a), metadata={op_name="jit(f)/x"}\n'
      "}\n"
    )
    .computations["main"]
    .instructions.values()
  )
  assert [t.bytes for t in instruction.types] == [64, 3, 4]
  assert [t.in_main_memory for t in instruction.types] == [False, True, True]
  assert instruction.opcode == "copy-start"
  assert instruction.operands == ("a",)
  assert instruction.op_name == "jit(f)/x"


def test_attributes_may_have_several_lines():
  program = hlo.parse(
    "ENTRY %main (a: f32[2]) -> f32[2] {\n"
    "  %k = f32[2]{0} custom-call(%a), attributes={metadata={\n"
    '"text":"a}"\n'
    '}}, custom_call_target="tpu_custom_call"\n'
    "  ROOT %b = f32[2]{0} negate(%k)\n"
    "}\n"
  )
  entry = program.computations[program.entry]
  assert list(entry.instructions) == ["k", "b"]
  assert entry.instructions["k"].target == "tpu_custom_call"
  assert entry.root.name == "b"


def test_a_text_of_something_else_is_refused():
  with pytest.raises(ValueError, match="no HLO module"):
    hlo.parse("module @jit_f {\n}\n")
