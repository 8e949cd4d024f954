"""Devices that are not here: what programs are compiled for ahead of time."""

import math
import os
import re
from collections.abc import Sequence
from typing import Any

from jax.experimental import topologies

from train.costs.chips import CHIPS

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
}
# Chips of the largest slice.
_POD = {"v4": 4096, "v5e": 256, "v5p": 6144, "v6e": 256, "tpu7x": 9216}


def devices(name: str, num_slices: int = 1) -> Sequence[Any]:
  """The devices of a topology such as "v5e:4x4", of one slice or several.

  Importing the compiler of a TPU changes how this process handles signals.

  Raises:
    ValueError: the topology is not known, or its compiler is not installed.
  """
  kind = _kind(name)
  options: dict[str, Any] = {}
  if kind == "v4":
    # Both cores of a chip work as one device, as they do by default on a TPU.
    options["chip_config_name"] = "megacore"
  if num_slices > 1:
    options["num_slices"] = num_slices
  for variable, value in _NO_TPU.items():
    os.environ.setdefault(variable, value)
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=name, **options
    )
  except ImportError as error:
    raise _no_compiler(name) from error
  except Exception as error:
    # libtpu raises what it likes: a failed check's text, or JAX's own error.
    if "libtpu" in str(error) and "find" in str(error):
      raise _no_compiler(name) from error
    reason = str(error).strip().splitlines()[0][:200]
    raise ValueError(
      f"--topology={name}: the TPU's compiler knows no such slice of {kind} "
      f"chips ({reason}); one that there is: {kind}:{_EXAMPLES[kind]}"
    ) from error
  return found.devices


def _kind(name: str) -> str:
  match = _NAME.fullmatch(name)
  if match is None:
    raise ValueError(
      f"--topology={name!r} is no topology: write a kind of chip and the shape "
      "of a slice, such as v5e:4x4 or v5p:2x2x4"
    )
  kind = match["kind"]
  if kind not in _EXAMPLES:
    known = ", ".join(f"{k}:{shape}" for k, shape in _EXAMPLES.items())
    raise ValueError(
      f"--topology={name}: the chip {kind!r} is not known; those that are: "
      f"{known}"
    )
  assert kind in CHIPS, "a chip of a topology has figures"
  chips = math.prod(int(side) for side in match["shape"].split("x"))
  if chips > _POD[kind]:
    raise ValueError(
      f"--topology={name} is {chips} chips, more than a slice of {kind} has: "
      f"at most {_POD[kind]}; several slices are --num_slices"
    )
  return kind


def _no_compiler(name: str) -> ValueError:
  return ValueError(
    f"--topology={name} needs the TPU's compiler: pip install "
    "'encdec[aot]' installs it (Linux on x86-64)"
  )
