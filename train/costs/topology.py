"""Devices that are not here: what programs are compiled for ahead of time."""

import math
import os
import re
from collections.abc import Sequence
from typing import Any

from jax.experimental import topologies

from train.costs.chips import CHIPS
from train.costs.gpu_targets import GPU_TARGETS, target_config

# libtpu asks for a TPU and its hosts when it is loaded: there are none.
_NO_TPU = {
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_LOG_DIR": "disabled",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
}
_NAME = re.compile(r"(?P<kind>[a-z0-9]+):(?P<shape>\d+(x\d+){0,2})")
_EXAMPLES = {
  "v4": "2x2x1",
  "v5e": "4x4",
  "v5p": "2x2x4",
  "v6e": "4x8",
  "tpu7x": "2x2x1",
  "h100": "8",
  "h200": "8",
}
# Chips of the largest slice.
_POD = {"v4": 4096, "v5e": 256, "v5p": 6144, "v6e": 256, "tpu7x": 9216}
# Of GPUs the compiler keeps no list.
_MOST_GPUS = 1 << 14


def devices(name: str, num_slices: int = 1) -> Sequence[Any]:
  """The devices of a topology such as "v5e:4x4", of one slice or several.

  GPUs are hosts of eight, or one host of fewer: "h200:16" is two hosts.

  Importing the compiler of a TPU changes how this process handles signals.

  Raises:
    ValueError: the topology is not known, or its compiler is not installed.
  """
  kind = _kind(name)
  if kind in GPU_TARGETS:
    return _gpus(name, kind, num_slices)
  return _tpus(name, kind, num_slices)


def attention(name: str, chosen: str) -> str:
  """The attention of programs for a topology, of the one that is chosen.

  Raises:
    ValueError: it is one that only a device compiles.
  """
  if _kind(name) not in GPU_TARGETS:
    return chosen
  if chosen == "cudnn":
    raise ValueError(
      f"model.attention='cudnn' cannot be compiled for --topology={name}: "
      "cuDNN asks a device what it can do; set model.attention='xla'"
    )
  return "xla" if chosen == "auto" else chosen


def _tpus(name: str, kind: str, num_slices: int) -> Sequence[Any]:
  options: dict[str, Any] = {}
  if kind == "v4":
    # Both cores of a chip work as one device, as they do by default on a TPU.
    options["chip_config_name"] = "megacore"
  if num_slices > 1:
    options["num_slices"] = num_slices
  sizes = name.partition(":")[2].split("x")
  if {*sizes} == {"1"}:
    # By default a host has more chips, and the slice would be a part of one.
    options["chips_per_host_bounds"] = [1] * 3
  for variable, value in _NO_TPU.items():
    os.environ.setdefault(variable, value)
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=name, **options
    )
  except ImportError as error:
    raise _no_compiler(name, "the TPU's", "aot") from error
  except Exception as error:
    # libtpu raises what it likes: a failed check's text, or JAX's own error.
    if "libtpu" in str(error) and "find" in str(error):
      raise _no_compiler(name, "the TPU's", "aot") from error
    reason = str(error).strip().splitlines()[0][:200]
    raise ValueError(
      f"--topology={name}: the TPU's compiler knows no such slice of {kind} "
      f"chips ({reason}); one that there is: {kind}:{_EXAMPLES[kind]}"
    ) from error
  return found.devices


def _gpus(name: str, kind: str, num_slices: int) -> Sequence[Any]:
  count, of_host = int(name.partition(":")[2]), CHIPS[kind].host_devices
  hosts = max(1, count // of_host)
  try:
    found = topologies.get_topology_desc(
      platform="cuda",
      topology_name=kind,
      target_config=target_config(kind),
      topology=f"{num_slices}x{hosts}x{count // hosts}",
    )
  except NotImplementedError as error:
    # JAX knows no topologies of a platform without a plugin.
    raise _no_compiler(name, "CUDA's", "aot-cuda") from error
  except Exception as error:
    reason = str(error).strip().splitlines()[0][:200]
    raise ValueError(
      f"--topology={name}: CUDA's compiler does not take it ({reason}): it "
      "must be of jax's own version, as pip install -c constraints.txt "
      "'encdec[aot-cuda]' installs it"
    ) from error
  return found.devices


def _kind(name: str) -> str:
  match = _NAME.fullmatch(name)
  if match is None:
    raise ValueError(
      f"--topology={name!r} is no topology: write a kind of chip and the shape "
      "of a slice, such as v5e:4x4 or v5p:2x2x4, or how many GPUs, h200:8"
    )
  kind = match["kind"]
  if kind not in _EXAMPLES:
    known = ", ".join(f"{k}:{shape}" for k, shape in _EXAMPLES.items())
    raise ValueError(
      f"--topology={name}: the chip {kind!r} is not known; those that are: "
      f"{known}"
    )
  assert kind in CHIPS, "a chip of a topology has figures"
  if kind in GPU_TARGETS:
    _check_gpus(name, kind, match["shape"])
    return kind
  chips = math.prod(int(side) for side in match["shape"].split("x"))
  if chips > _POD[kind]:
    raise ValueError(
      f"--topology={name} is {chips} chips, more than a slice of {kind} has: "
      f"at most {_POD[kind]}; several slices are --num_slices"
    )
  return kind


def _check_gpus(name: str, kind: str, shape: str) -> None:
  of_host = CHIPS[kind].host_devices
  count = int(shape) if shape.isdecimal() else 0
  if not 1 <= count <= _MOST_GPUS or (count > of_host and count % of_host):
    raise ValueError(
      f"--topology={name}: write how many GPUs, 1 to {of_host} or whole hosts "
      f"of {of_host} up to {_MOST_GPUS}, such as {kind}:{of_host} or "
      f"{kind}:{2 * of_host}"
    )


def _no_compiler(name: str, whose: str, extra: str) -> ValueError:
  return ValueError(
    f"--topology={name} needs {whose} compiler: pip install "
    f"'encdec[{extra}]' installs it (Linux on x86-64)"
  )
