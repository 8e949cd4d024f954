"""The generation of a configuration, compiled for devices elsewhere."""

import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from encdec.generation import programs
from encdec.generation.decode_params import unstack
from encdec.generation.generate import start_prompt
from encdec.generation.search.context import SearchContext
from encdec.generation.search.options import SearchOptions
from encdec.model import FlaxEncoderDecoderModule, param_shapes
from encdec.sharding import param_specs
from encdec.sharing import expand
from encdec.special_tokens import SpecialTokens
from train import generation_settings
from train.config import Config
from train.costs import fit
from train.costs.ahead import AheadOfTime, lower_and_compile
from train.costs.program_costs import program_costs
from train.mesh import batch_sharding, platform_of, replicated, sharding_rules
from train.setting_names import naming

# Of a search whose tokens are not known: which ids they are changes nothing.
_TOKENS = SpecialTokens(start=1, end=(2,), pad=0, where={})


def compile_generation(
  config: Config,
  module: FlaxEncoderDecoderModule,
  mesh: Mesh,
  rows: int,
  source_length: int,
) -> dict[str, AheadOfTime]:
  """The programs that encode sources, and search for their texts.

  A search counts with all its steps: texts of `generation.max_length` tokens.

  Args:
    rows: of a batch, all devices together.

  Raises:
    ValueError: options of generation that contradict each other, or it does
      not fit the memory of a device.
  """
  settings = generation_settings.resolve(config)
  options = generation_settings.search_options(
    settings, _TOKENS, module.config.decoder.vocab_size, None
  )
  rules = sharding_rules(config)
  module = module.clone(platform=platform_of(mesh), rules=rules)
  with (
    naming(attention="model.attention"),
    fit.compiling_generation(rows),
    jax.set_mesh(mesh),
  ):
    found = _compile(
      module, mesh, options, (rows, source_length), settings.max_length
    )
  for program in found.values():
    if program.costs.chip is not None:
      limit = round(program.costs.chip.memory)
      fit.check_generation_fits(program.costs.memory, limit, rows)
  return found


def _compile(
  module: FlaxEncoderDecoderModule,
  mesh: Mesh,
  options: SearchOptions,
  shape: tuple[int, int],
  length: int,
) -> dict[str, AheadOfTime]:
  assert module.rules is not None, "the module is on a mesh"
  stored = param_shapes(module)
  stored = _placed(stored, param_specs(stored, module.rules, mesh))
  params = _Stage(
    jax.jit(lambda tree: unstack(expand(tree, module.config), module)),
    mesh,
    stored,
  ).outputs
  batch = batch_sharding(mesh, module.rules)
  source = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=batch)
  encode = _Stage(
    programs.encode, mesh, module, params, source, source, source, None
  )
  cross = encode.outputs
  search = SearchContext(
    options,
    module.platform,
    vocab_size=module.config.decoder.vocab_size,
    unplaced=module.config.decoder.unplaced_token,
    rules=module.rules,
  )
  prompt = jax.eval_shape(lambda: start_prompt(shape[0], _TOKENS.start or 0))
  prompt = _placed(prompt, jax.tree.map(lambda _: batch, prompt))
  whole = jax.eval_shape(lambda: (search, jnp.int32(shape[0])))
  search, enough = _placed(
    whole, jax.tree.map(lambda _: replicated(mesh), whole)
  )
  loop_state = _Stage(
    programs.start,
    mesh,
    module,
    length - 1,
    params,
    cross,
    prompt,
    search,
    None,
  ).outputs
  run = _Stage(
    programs.run,
    mesh,
    module,
    params,
    cross,
    prompt,
    search,
    loop_state,
    enough,
  )
  return {
    "encode": encode.measured(params, 1),
    "search": run.measured(params, length - 1),
  }


class _Stage:
  """A jitted function, compiled; `outputs` are what the next one is given."""

  def __init__(self, function: Any, mesh: Mesh, *arguments: Any):
    begun = time.monotonic()
    self.mesh = mesh
    traced = function.trace(*arguments)
    self.compiled = lower_and_compile(traced, mesh)
    self.outputs = _placed(traced.out_info, self.compiled.output_shardings)
    self.seconds = time.monotonic() - begun

  def measured(self, params: Any, unknown_trips: int) -> AheadOfTime:
    costs = program_costs(self.compiled, params, self.mesh, unknown_trips)
    return AheadOfTime(self.compiled, costs, self.seconds)


def _placed(shapes: Any, shardings: Any) -> Any:
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    shapes,
    shardings,
  )
