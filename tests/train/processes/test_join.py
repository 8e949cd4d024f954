"""Which environment makes a process join others, and what it is told."""

import jax
import pytest

from train.errors import Refusal
from train.processes import heartbeat, join

SLURM = {
  "SLURM_JOB_ID": "7",
  "SLURM_PROCID": "1",
  "SLURM_STEP_NUM_TASKS": "2",
  "SLURM_STEP_NUM_NODES": "2",
  "SLURM_GPUS_ON_NODE": "8",
}


@pytest.fixture
def calls(monkeypatch):
  """The calls of jax.distributed.initialize; the environment is bare."""
  recorded = []
  monkeypatch.setattr(
    jax.distributed, "initialize", lambda *a, **k: recorded.append((a, k))
  )
  for name in [*SLURM, "TPU_WORKER_HOSTNAMES", "MEGASCALE_NUM_SLICES"]:
    monkeypatch.delenv(name, raising=False)
  return recorded


def test_alone_joins_nothing(calls):
  join.join()
  assert not calls


def test_flags_are_passed_as_they_are(calls):
  join.join("10.0.0.1:8476", 0, 4)
  [(arguments, options)] = calls
  assert arguments == ("10.0.0.1:8476", 4, 0)
  assert options == {
    "cluster_detection_method": "deactivate",
    "heartbeat_timeout_seconds": heartbeat.JAX_SECONDS,
    "initialization_timeout": 300,
  }


@pytest.mark.parametrize(
  "flags, named",
  [
    (("host:1", -1, 0), "--process_id=-1"),
    (("", 0, 2), "--coordinator= "),
    (("host:1", 0, 0), "--num_processes=0"),
    (("host", 0, 2), "--coordinator=host:"),
    (("host:1", 2, 2), "--process_id=2"),
  ],
)
def test_wrong_flags_are_named(calls, flags, named):
  with pytest.raises(Refusal, match=named):
    join.join(*flags)
  assert not calls


def test_slurm_one_task_a_node_takes_all_its_gpus(calls, monkeypatch):
  for name, value in SLURM.items():
    monkeypatch.setenv(name, value)
  join.join()
  [(_, options)] = calls
  assert options["local_device_ids"] == range(8)
  assert options["heartbeat_timeout_seconds"] < 50


def test_slurm_one_task_a_gpu_is_left_to_jax(calls, monkeypatch):
  for name, value in (SLURM | {"SLURM_STEP_NUM_TASKS": "16"}).items():
    monkeypatch.setenv(name, value)
  join.join()
  [(_, options)] = calls
  assert options["local_device_ids"] is None


def test_slurm_batch_script_outside_of_srun_is_alone(calls, monkeypatch):
  monkeypatch.setenv("SLURM_JOB_ID", "7")
  monkeypatch.setenv("SLURM_NTASKS", "16")
  join.join()
  assert not calls


@pytest.mark.parametrize(
  "environment, platforms, pod",
  [
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, "tpu,cpu", True),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, "cpu", False),
    ({"TPU_WORKER_HOSTNAMES": "a"}, "tpu,cpu", False),
    (
      {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"},
      "tpu,cpu",
      True,
    ),
    ({}, "tpu,cpu", True),
    ({"TPU_SKIP_MDS_QUERY": "1"}, "tpu,cpu", False),
    ({}, "", False),
  ],
)
def test_tpu_pods_are_recognised(environment, platforms, pod):
  assert join.is_tpu_pod(environment, platforms) == pod
