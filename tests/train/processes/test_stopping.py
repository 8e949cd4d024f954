"""Stopping: points at which a run stops, and what is given up for it."""

import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from train.cli.signals import Saving
from train.processes.stopping import Stopped, Stopping


def test_a_signal_stops_at_the_next_point():
  saving = Saving([])
  stopping = Stopping(saving)
  stopping.check()
  saving.received.append(signal.SIGTERM)
  assert stopping.asked()
  with pytest.raises(Stopped):
    stopping.check()


def test_a_compilation_is_given_up_at_a_signal():
  saving, release = Saving([]), threading.Event()
  stopping = Stopping(saving)

  def compile_it():
    saving.received.append(signal.SIGTERM)
    assert release.wait(60)

  with pytest.raises(Stopped):
    stopping.compiling(compile_it)
  assert stopping.abandoned
  release.set()


def test_a_compilation_ends_as_it_would_by_itself():
  stopping, done = Stopping(Saving([])), []
  stopping.compiling(lambda: done.append(1))
  assert done == [1] and not stopping.abandoned

  def fails():
    raise ValueError("no such operation")

  with pytest.raises(ValueError, match="no such operation"):
    stopping.compiling(fails)


class Program:
  """As jitted: `lower(...).compile()`, which may take long, then a call."""

  def __init__(self, compile=lambda: None):
    self.compile, self.lowered = compile, []

  def lower(self, *args, **kwargs):
    self.lowered.append((args, kwargs))
    return self

  def __call__(self, x, *, scale):
    return x * scale


def test_a_program_is_compiled_once_for_its_shapes():
  stopping, program = Stopping(Saving([])), Program()
  for size in (2, 3, 2):
    found = stopping.call(program, jnp.ones(size), scale=2)
    assert found.tolist() == [2.0] * size
  assert [len(args[0]) for args, _ in program.lowered] == [2, 3]


def test_a_call_is_given_up_at_a_signal_while_it_compiles():
  saving, release = Saving([]), threading.Event()
  stopping, called = Stopping(saving), []

  def compile_it():
    saving.received.append(signal.SIGTERM)
    assert release.wait(60)

  program = Program(compile_it)
  with pytest.raises(Stopped):
    called.append(stopping.call(program, jnp.ones(2), scale=2))
  assert stopping.abandoned and not called
  release.set()


def test_a_call_does_not_compile_again(compilations):
  """JAX keeps what another thread has compiled, under the mesh set here."""
  mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
  stopping = Stopping(Saving([]))

  @jax.jit
  def twice(x):
    assert jax.sharding.get_abstract_mesh() == mesh.abstract_mesh
    return 2 * x

  place = jax.sharding.NamedSharding(mesh, jax.P("data"))
  with jax.set_mesh(mesh):
    x = jax.device_put(np.ones(4), place)
    before = len(compilations)
    for _ in range(2):
      assert stopping.call(twice, x).tolist() == [2.0] * 4
  assert len(compilations) == before + 1
