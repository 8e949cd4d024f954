"""Joining the other processes of a run, before JAX touches a device."""

import os
from collections.abc import Mapping, Sequence

import jax
from absl import logging

from train.cli import signals
from train.errors import Refusal
from train.processes import heartbeat

# In which all processes must have come; JAX ends those that have waited.
_JOIN_SECONDS = 300


def join(
  coordinator: str = "", process_id: int = -1, num_processes: int = 0
) -> None:
  """Joins the run's processes; a process on its own has nothing to join.

  Explicit arguments come first, then Slurm's environment, then a TPU pod's.

  Args:
    coordinator: host:port of process 0; empty: not given.
    process_id: of this process, from 0; -1: not given.
    num_processes: of the whole run; 0: not given.

  Raises:
    Refusal: some of the arguments are missing, or out of range; or JAX finds
      no device.
  """
  joined = _join(coordinator, process_id, num_processes)
  if joined:
    # JAX has taken SIGTERM; devices of other hosts may be waited for.
    signals.renew()
  _check_devices()
  if joined:
    logging.info("process %d of %d", jax.process_index(), jax.process_count())


def _join(coordinator: str, process_id: int, num_processes: int) -> bool:
  environment = os.environ
  if coordinator or process_id != -1 or num_processes:
    _check(coordinator, process_id, num_processes)
    logging.info(
      "process %d of %d waits for the others at %s, at most %d s",
      *(process_id, num_processes, coordinator, _JOIN_SECONDS),
    )
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      initialization_timeout=_JOIN_SECONDS,
      heartbeat_timeout_seconds=heartbeat.JAX_SECONDS,
      # All of this machine's devices, whatever cluster it is part of.
      cluster_detection_method="deactivate",
    )
  elif slurm_tasks(environment) > 1:
    jax.distributed.initialize(
      local_device_ids=slurm_devices(environment),
      heartbeat_timeout_seconds=heartbeat.JAX_SECONDS,
    )
  elif is_tpu_pod(environment, jax.config.values["jax_platforms"] or ""):
    jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat.JAX_SECONDS)
  else:
    return False
  return True


def _check_devices() -> None:
  """Raises Refusal where JAX has no device of the kind that it is to use."""
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:
    platforms = jax.config.values["jax_platforms"] or ""
    # Of a GPU that is not there JAX only says that an assertion failed.
    lines = str(error).splitlines() or [f"JAX finds no {platforms} device"]
    raise Refusal(
      f"JAX_PLATFORMS={platforms}: {lines[0]}; set JAX_PLATFORMS=cpu, or unset "
      "it to take what there is; for an accelerator install jax[cuda12] or "
      "jax[tpu]"
    ) from error


def _check(coordinator: str, process_id: int, num_processes: int) -> None:
  if not coordinator or process_id == -1 or not num_processes:
    raise Refusal(
      f"--coordinator={coordinator} --process_id={process_id} "
      f"--num_processes={num_processes}: give all three, or none of them on "
      "Slurm, on a TPU pod and for a run of one process"
    )
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isdigit():
    raise Refusal(
      f"--coordinator={coordinator}: must be host:port of process 0, such as "
      "10.0.0.1:8476"
    )
  if not 0 <= process_id < num_processes:
    raise Refusal(
      f"--process_id={process_id} with --num_processes={num_processes}: "
      f"must be from 0 to {num_processes - 1}"
    )


def slurm_tasks(environment: Mapping[str, str]) -> int:
  """Tasks of the srun step that started this process; 0: none did."""
  # SLURM_NTASKS is also there in a batch script outside of srun, where this
  # process is alone.
  if "SLURM_PROCID" not in environment:
    return 0
  return int(environment.get("SLURM_STEP_NUM_TASKS", "0"))


def slurm_devices(environment: Mapping[str, str]) -> Sequence[int] | None:
  """The GPUs of this task; None: JAX's rule, the one of its local number."""
  alone = environment["SLURM_STEP_NUM_TASKS"] == environment.get(
    "SLURM_STEP_NUM_NODES"
  )
  gpus = int(environment.get("SLURM_GPUS_ON_NODE", "0"))
  return range(gpus) if alone and gpus else None


def is_tpu_pod(environment: Mapping[str, str], platforms: str) -> bool:
  """Whether this host may be one of several of a TPU slice.

  Args:
    environment: variables that the TPU runtime and GKE set.
    platforms: JAX's, which names "tpu" on a host with chips and libtpu.
  """
  if "tpu" not in platforms.split(","):
    return False
  workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get(
    "TPU_WORKER_HOSTNAMES", ""
  )
  if "," in workers or int(environment.get("MEGASCALE_NUM_SLICES") or 1) > 1:
    return True
  # A TPU VM outside of GKE learns its neighbours from the metadata server,
  # which JAX asks; a slice of one host is then a run of one process.
  return not workers and "TPU_SKIP_MDS_QUERY" not in environment
