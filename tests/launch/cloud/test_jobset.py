"""The JobSet's manifest: golden texts, read and written again by its API."""

import re
from pathlib import Path, PurePosixPath

import pytest
import yaml
from kubeflow_trainer_api import models

from launch import exit_status
from launch.cloud import accelerators, jobset
from launch.cloud.shared_folder import SharedFolder
from launch.program import Program

GOLDEN = Path(__file__).parents[1] / "golden"
SETTINGS = jobset.Settings(
  name="b2b",
  namespace="default",
  image="registry.example/encdec:1",
  machines=accelerators.tpu_slice("v5e:4x4"),
  slices=2,
  folder=SharedFolder("my-bucket", "", PurePosixPath("/bucket")),
  service_account="trainer",
  spot=True,
  grace_seconds=300,
  max_restarts=20,
)
GPUS = {
  **vars(SETTINGS),
  "machines": accelerators.gpu_hosts("h100:8", 2),
  "slices": 1,
  "folder": SharedFolder("", "10.0.0.2:/runs", PurePosixPath("/nfs")),
  "service_account": "",
  "spot": False,
}
COMMAND = Program(
  (
    "--config=configs/bert2bert_cnn_dailymail.py:pod",
    "--workdir=/bucket/runs/b2b",
    "--config.a=$(HOME) $x $$",
    "--config.b=1\n'2' \"3\" é\t",
    "--config.c=yes",
  )
)
GOLDENS = {
  "gke_tpu.yaml": jobset.render(SETTINGS, COMMAND),
  "gke_gpu.yaml": jobset.render(jobset.Settings(**GPUS), COMMAND),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_the_manifest_is_the_golden_one(name):
  assert GOLDENS[name] == (GOLDEN / name).read_text()


def model(text: str) -> models.JobsetV1alpha2JobSet:
  return models.JobsetV1alpha2JobSet.from_dict(yaml.safe_load(text))


@pytest.mark.parametrize("name", GOLDENS)
def test_the_api_knows_every_key(name):
  """A key that it does not know is lost when it is written again."""
  assert model(GOLDENS[name]).to_dict() == yaml.safe_load(GOLDENS[name])
  mistyped = GOLDENS[name].replace("backoffLimit", "backOffLimit")
  assert model(mistyped).to_dict() != yaml.safe_load(mistyped)


def job(text: str) -> models.IoK8sApiBatchV1JobSpec:
  (replicated,) = model(text).spec.replicated_jobs
  return replicated.template.spec


@pytest.mark.parametrize(
  ("topology", "hosts", "chips"),
  [("v5e:2x4", 1, 8), ("v5e:16x16", 64, 4), ("v5p:4x4x8", 32, 4)],
)
def test_a_slice_has_a_pod_for_each_host(topology, hosts, chips):
  machines = accelerators.tpu_slice(topology)
  settings = jobset.Settings(**{**vars(SETTINGS), "machines": machines})
  spec = job(jobset.render(settings, COMMAND))
  assert spec.completions == spec.parallelism == hosts
  (container,) = spec.template.spec.containers
  assert container.resources.to_dict()["limits"] == {"google.com/tpu": chips}


@pytest.mark.parametrize(
  ("topology", "slices", "alone"),
  [("v5e:2x4", 1, False), ("v5e:2x4", 2, True), ("v5e:4x4", 1, True)],
)
def test_hosts_of_a_slice_are_of_one_node_pool(topology, slices, alone):
  machines = accelerators.tpu_slice(topology)
  changed = {"machines": machines, "slices": slices}
  settings = jobset.Settings(**(vars(SETTINGS) | changed))
  found = model(jobset.render(settings, COMMAND)).metadata.annotations
  key = "alpha.jobset.sigs.k8s.io/exclusive-topology"
  assert found == ({key: "cloud.google.com/gke-nodepool"} if alone else None)


def test_only_what_another_start_can_mend_restarts_it():
  spec = job(GOLDENS["gke_tpu.yaml"])
  taken_away, would_come_again = spec.pod_failure_policy.rules
  assert taken_away.action == "Count"
  assert would_come_again.action == "FailJob"
  assert would_come_again.on_exit_codes.operator == "NotIn"
  kept = would_come_again.on_exit_codes.values
  assert kept == [s for s in range(256) if exit_status.runs_again(s)]
  policy = model(GOLDENS["gke_tpu.yaml"]).spec.failure_policy
  (rule,) = policy.rules
  assert rule.action == "FailJobSet" and policy.max_restarts == 20
  assert rule.on_job_failure_reasons == ["PodFailurePolicy"]
  assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule.name)


def test_hosts_with_gpus_are_told_who_is_who():
  words = jobset.arguments(jobset.Settings(**GPUS), COMMAND)
  assert words[-3:] == [
    "--coordinator=b2b-main-0-0.b2b:8476",
    "--process_id=$(JOB_COMPLETION_INDEX)",
    "--num_processes=2",
  ]
  alone = GPUS | {"machines": accelerators.gpu_hosts("h100:8", 1)}
  assert not [
    word
    for word in jobset.arguments(jobset.Settings(**alone), COMMAND)
    if "coordinator" in word
  ]
