"""A run compiles before it allocates, and says what it is about to do."""

import logging as python_logging

import jax
import pytest

from data.collate import abstract_batch
from train.build_step import build_step
from train.compiled_steps import CompiledSteps
from train.costs import fit, plan
from train.errors import Refusal
from train.mesh import MeshConfig, make_mesh
from train.setup.modules import preset_module


@pytest.fixture(scope="module")
def built(smoke_config):
  config = smoke_config()
  mesh = make_mesh(MeshConfig(1, 8, 1, 1))
  return config, mesh, build_step(config, preset_module(config), mesh)


def compile_step(built):
  config, mesh, program = built
  shape = config.data.max_source_length, config.data.max_target_length
  step = CompiledSteps(program.step, [shape])
  batch = abstract_batch(shape, config.train.batch_size)
  with jax.set_mesh(mesh):
    plan.compile_step(
      step, program.state, batch, config=config, mesh=mesh, pairs=8
    )
  return step, batch


def test_it_says_five_lines_and_keeps_the_program(built, caplog):
  with caplog.at_level(python_logging.INFO):
    step, batch = compile_step(built)
  assert not step.is_new(batch)
  said = [record.getMessage() for record in caplog.records]
  for part in ("runs on 8 x cpu", "memory of", "work of", "communication of"):
    assert any(part in line for line in said), part
  # A CPU does not say what it has, and the run goes on.
  assert any("does not say how much memory" in line for line in said)


def test_what_does_not_fit_is_refused(built, monkeypatch):
  monkeypatch.setattr(fit, "memory_limit", lambda device: 10_000_000)
  with pytest.raises(Refusal, match=r"of a device's memory, which has 0.01"):
    compile_step(built)


def test_a_compiler_that_lacks_memory_is_a_refusal(built):
  config, mesh, program = built
  config = config.copy_and_resolve_references()
  config.train.batch_size = 64
  text = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
    "memory space hbm. Used 37.00G of 15.75G hbm. Exceeded by 21.25G."
  )
  with (
    pytest.raises(Refusal, match=r"39.73 GB .* has 16.91.*accumulate_steps="),
    fit.compiling(config, program.state, mesh),
  ):
    raise jax.errors.JaxRuntimeError(text)
  with (
    pytest.raises(Refusal, match=r"generation for 8 rows .*eval.batch_size"),
    fit.compiling_generation(8),
  ):
    raise jax.errors.JaxRuntimeError(text)
  with (
    pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"),
    fit.compiling(config, program.state, mesh),
  ):
    raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_a_program_that_cannot_be_read_ends_no_run(built, monkeypatch, caplog):
  def unreadable(*_):
    raise KeyError("a form of another compiler")

  monkeypatch.setattr(plan, "program_costs", unreadable)
  step, batch = compile_step(built)
  assert not step.is_new(batch)
  assert "what the step costs is not known" in caplog.text
