"""The search compiles what may be fastest, and puts what fits first."""

import jax
import pytest

from configs import dates
from train.costs import ahead, search
from train.costs.chips import CHIPS
from train.costs.memory import Memory
from train.costs.program_costs import ProgramCosts
from train.costs.roofline import Roofline
from train.costs.work import Work
from train.errors import Refusal
from train.setup.modules import preset_module

V5E = CHIPS["v5e"]
# Bytes of a row that each policy keeps.
KEPT = {
  "none": 8e9,
  "qkv+ctx+out+mlp": 5e9,
  "qkv+ctx+out": 4e9,
  "ctx+out": 3e9,
  "ctx": 2e9,
  "full": 1e9,
}


def costs(temporary: float, seconds: float) -> ProgramCosts:
  memory = Memory(10**8, 2 * 10**8, 3 * 10**8, 0, round(temporary), 0, 0, 0)
  roof = Roofline(seconds, 0.0, 0.0, 0.0)
  return ProgramCosts(memory, Work(0.0, 0.0, (), ()), (), (), V5E, roof)


@pytest.fixture
def config():
  config = dates.get_config("smoke")
  config.data.source_vocab_size = 512
  return config


@pytest.fixture
def tried(config, monkeypatch):
  def compile_step(config, module, mesh, shape):
    del shape
    rows = config.train.batch_size // mesh.size
    if mesh.shape["fsdp"] == config.train.loss_chunks > 1:
      raise ValueError("vocab has size 7, which fsdp does not divide")
    if rows * KEPT[module.remat] > 60e9:
      raise Refusal("the step needs 99 GB of a device's memory, which has 16")
    assert config.model.remat == module.remat
    slow = 1 + search.REMATS.index(module.remat)
    found = costs(rows * KEPT[module.remat], rows * slow * 1e-3)
    return ahead.AheadOfTime(None, found, 1.0)

  monkeypatch.setattr(ahead, "compile_step", compile_step)
  config.train.batch_size = 32
  return search.search(
    config, preset_module(config), jax.devices()[:4], (16, 8)
  )


def test_those_that_fit_come_first_the_fastest_first(tried):
  fits = [one.fits for one in tried]
  assert fits == sorted(fits, reverse=True) and any(fits) and not all(fits)
  rates = [one.rows_per_second for one in tried if one.fits]
  assert rates == sorted(rates, reverse=True)
  for one in tried:
    if one.fits:
      assert one.costs.memory.total <= search.MOST * V5E.memory


def test_recomputing_more_is_tried_until_it_fits(tried):
  by_settings = {}
  for one in tried:
    settings = dict(one.overrides)
    remat = settings.pop("model.remat")
    by_settings.setdefault(tuple(settings.items()), set()).add(remat)
  for settings, remats in by_settings.items():
    found = [
      one for one in tried if one.fits and set(settings) <= set(one.overrides)
    ]
    assert len(found) <= 1
    if found:
      last = search.REMATS.index(dict(found[0].overrides)["model.remat"])
      assert remats == set(search.REMATS[: last + 1])


def test_what_is_refused_says_why(tried):
  lines = search.table(tried).splitlines()
  refused = [line for line in lines if line.startswith("refused")]
  assert any("fsdp does not divide" in line for line in refused)
  assert any("needs 99 GB" in line for line in refused)
  first = tried[0]
  assert lines[0].endswith(
    " ".join(f"--config.{key}={value}" for key, value in first.overrides)
  )


def test_other_errors_are_not_results(config, monkeypatch):
  def broken(*_):
    raise RuntimeError("a bug")

  monkeypatch.setattr(ahead, "compile_step", broken)
  with pytest.raises(RuntimeError, match="a bug"):
    search.search(config, preset_module(config), jax.devices()[:1], (16, 8))


def test_what_a_compiler_cannot_do_is_a_result(config, monkeypatch):
  """A search of hours goes on after it."""

  def fails(*_):
    raise jax.errors.JaxRuntimeError("INTERNAL: memory space vmem")

  monkeypatch.setattr(ahead, "compile_step", fails)
  found = search.search(
    config, preset_module(config), jax.devices()[:1], (16, 8)
  )
  assert found and all("vmem" in one.reason for one in found)


def test_tensor_parallelism_stays_as_it_is(config, monkeypatch):
  shapes = []

  def compile_step(config, module, mesh, shape):
    shapes.append(dict(mesh.shape))
    return ahead.AheadOfTime(None, costs(1e9, 1e-3), 1.0)

  monkeypatch.setattr(ahead, "compile_step", compile_step)
  config.mesh.tensor = 2
  search.search(config, preset_module(config), jax.devices(), (16, 8))
  assert {shape["tensor"] for shape in shapes} == {2}
  assert {shape["fsdp"] for shape in shapes} == {1, 4}
