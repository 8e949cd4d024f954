"""Saves adapters as the folder that PEFT loads over the untrained pair.

PEFT's modules are PyTorch's: where GPT-2 holds query, key and value in one
tensor, their adapters become one of three times the rank.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from transformers import EncoderDecoderConfig

from encdec import adapters
from encdec.adapters import LoraConfig
from encdec.config import EncDecConfig
from encdec.hub.configs import encdec_config
from encdec.hub.files.atomic_write import partial_files, write_text
from encdec.hub.files.safetensors_writer import TensorToWrite, write_file
from encdec.hub.weights.conversion import tensors_to_write
from encdec.hub.weights.tensor_map import TensorMapping, tensor_mappings
from encdec.sharing import share_of
from encdec.types import Params

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# PyTorch holds them under two names.
_TIED = ("embeddings/tokens/embedding", "head/bias")

_Leaves = Mapping[str, Any]


def save_adapters(
  folder: str | Path,
  params: Params,
  hub_config: EncoderDecoderConfig,
  lora: LoraConfig,
  *,
  base: str | None = None,
) -> None:
  """Writes adapter_config.json and adapter_model.safetensors.

  What is trained whole becomes PEFT's `modules_to_save`.

  Args:
    params: the stored tree, with its adapters.
    base: the folder or Hub id of the untrained pair; None: it has none, and
      is composed of its sides.

  Raises:
    ValueError: what is trained whole has two names in PyTorch.
  """
  config = encdec_config(hub_config, share=share_of(params))
  leaves: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
  whole = _whole_modules(config, lora)
  tensors = [
    dataclasses.replace(tensor, name=_PREFIX + tensor.name)
    for tensor in tensors_to_write(config, adapters.merge(params, lora))
    if _module(tensor.name) in whole
  ]
  parts: dict[str, int] = {}
  conv1d = True
  for module, pieces in _adapted_modules(config, leaves).items():
    if module not in whole:
      tensors += _tensors(module, pieces, leaves, lora)
      parts[module] = len(pieces)
      conv1d &= not pieces[0].weight.transposed
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  values = _config(lora, parts, whole, base) | {"fan_in_fan_out": conv1d}
  with partial_files([folder / WEIGHTS]) as (partial,):
    write_file(partial, tensors)
    os.replace(partial, folder / WEIGHTS)
  text = json.dumps(values, indent=2, sort_keys=True) + "\n"
  write_text(folder / CONFIG, text)


def _config(
  lora: LoraConfig,
  parts: Mapping[str, int],
  whole: Sequence[str],
  base: str | None,
) -> dict[str, Any]:
  """PEFT's LoraConfig.

  Args:
    parts: each adapted module, and how many kernels it holds.
  """
  fused = {module: count for module, count in parts.items() if count > 1}
  return {
    "peft_type": "LORA",
    "task_type": "SEQ_2_SEQ_LM",
    "base_model_name_or_path": base,
    "inference_mode": True,
    "r": lora.rank,
    "lora_alpha": lora.alpha,
    "lora_dropout": 0.0,
    "use_dora": lora.dora,
    "use_rslora": False,
    "bias": "none",
    "target_modules": sorted(parts),
    "modules_to_save": sorted(whole) or None,
    "rank_pattern": {name: lora.rank * n for name, n in fused.items()},
    # Of one scale with the others: alpha / rank.
    "alpha_pattern": {name: lora.alpha * n for name, n in fused.items()},
  }


def _module(name: str) -> str:
  """The PyTorch module that a tensor is a parameter of."""
  return name.rpartition(".")[0]


def _whole_modules(config: EncDecConfig, lora: LoraConfig) -> list[str]:
  """Modules of which something is trained whole, in the model's order."""
  modules = {}
  for mapping in tensor_mappings(config):
    if lora.is_base(mapping.path):
      continue
    if mapping.weight.path in _TIED:
      raise ValueError(
        f"model.lora_unfrozen trains {mapping.path} whole, which PyTorch holds "
        "under two names: no PEFT folder can hold it; export the merged pair, "
        "without --adapters"
      )
    modules[_module(mapping.name)] = None
  return list(modules)


def _adapted_modules(
  config: EncDecConfig, leaves: _Leaves
) -> dict[str, list[TensorMapping]]:
  """Modules with an adapter, and the kernels that each holds, in order."""
  modules: dict[str, list[TensorMapping]] = {}
  for mapping in tensor_mappings(config):
    if mapping.path.endswith("/kernel") and mapping.weight.layered:
      modules.setdefault(_module(mapping.name), []).append(mapping)
  return {
    module: pieces
    for module, pieces in modules.items()
    if any(_leaf(m, adapters.A) in leaves for m in pieces)
  }


def _leaf(mapping: TensorMapping, name: str) -> str:
  return f"{mapping.path.removesuffix('/kernel')}/{name}"


def _tensors(
  module: str, pieces: list[TensorMapping], leaves: _Leaves, lora: LoraConfig
) -> list[TensorToWrite]:
  """A module's A `[r, in]`, B `[out, r]` and, of DoRA, lengths `[out]`."""
  sizes = [_sizes(mapping, leaves) for mapping in pieces]
  inputs, outputs = sizes[0][0], sum(size for _, size in sizes)
  rank = lora.rank * len(pieces)
  made: dict[str, tuple[tuple[int, ...], Callable[..., np.ndarray]]] = {
    "lora_A.weight": ((rank, inputs), _matrix_a),
    "lora_B.weight": ((outputs, rank), _matrix_b),
  }
  if lora.dora:
    made["lora_magnitude_vector"] = ((outputs,), _magnitude)
  return [
    TensorToWrite(
      f"{_PREFIX}{module}.{name}",
      shape,
      np.dtype(np.float32),
      functools.partial(make, pieces, leaves, lora),
    )
    for name, (shape, make) in made.items()
  ]


def _sizes(mapping: TensorMapping, leaves: _Leaves) -> tuple[int, int]:
  """A kernel's inputs and outputs."""
  dims = leaves[mapping.path].shape[1:]
  split = adapters.input_dims(mapping.path.removesuffix("/kernel"))
  return int(np.prod(dims[:split])), int(np.prod(dims[split:]))


def _of_layer(mapping: TensorMapping, leaves: _Leaves, name: str) -> Any:
  """A layer's slice of an adapter's leaf, float32; None: there is none."""
  leaf = leaves.get(_leaf(mapping, name))
  if leaf is None:
    return None
  return np.asarray(leaf)[mapping.layer].astype(np.float32)


def _matrix_a(
  pieces: list[TensorMapping], leaves: _Leaves, lora: LoraConfig
) -> np.ndarray:
  rows = []
  for mapping in pieces:
    inputs, _ = _sizes(mapping, leaves)
    a = _of_layer(mapping, leaves, adapters.A)
    if a is None:
      a = np.zeros((inputs, lora.rank), np.float32)
    rows.append(a.reshape(inputs, lora.rank).T)
  return np.concatenate(rows)


def _matrix_b(
  pieces: list[TensorMapping], leaves: _Leaves, lora: LoraConfig
) -> np.ndarray:
  """Block-diagonal: each part of the output has a rank of its own."""
  sizes = [outputs for _, outputs in (_sizes(m, leaves) for m in pieces)]
  result = np.zeros((sum(sizes), lora.rank * len(pieces)), np.float32)
  start = 0
  for i, (mapping, size) in enumerate(zip(pieces, sizes, strict=True)):
    b = _of_layer(mapping, leaves, adapters.B)
    if b is not None:
      columns = slice(i * lora.rank, (i + 1) * lora.rank)
      result[start : start + size, columns] = b.reshape(lora.rank, size).T
    start += size
  return result


def _magnitude(
  pieces: list[TensorMapping], leaves: _Leaves, lora: LoraConfig
) -> np.ndarray:
  del lora
  parts = []
  for mapping in pieces:
    length = _of_layer(mapping, leaves, adapters.MAGNITUDE)
    if length is None:
      kernel = np.asarray(leaves[mapping.path])[mapping.layer]
      inputs, _ = _sizes(mapping, leaves)
      kernel = kernel.reshape(inputs, -1).astype(np.float32)
      length = np.linalg.norm(kernel, axis=0)
    parts.append(length.reshape(-1))
  return np.concatenate(parts)
