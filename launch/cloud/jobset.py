"""The JobSet of a run: its manifest for Kubernetes, as text."""

import dataclasses
from typing import Any

import yaml

from launch import exit_status
from launch.cloud.accelerators import Slice
from launch.cloud.shared_folder import SharedFolder
from launch.program import Program

# The user of launch/Dockerfile.
USER_ID = 1000
PORT = 8476
_POOL = "cloud.google.com/gke-nodepool"
_SPOT = "cloud.google.com/gke-spot"


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a manifest says beside the command.

  Attributes:
    machines: of one slice.
    slices: of them.
    folder: of which the workdir is a part.
    service_account: of Kubernetes; empty: the default one.
  """

  name: str
  namespace: str
  image: str
  machines: Slice
  slices: int
  folder: SharedFolder
  service_account: str
  spot: bool
  grace_seconds: int
  max_restarts: int


class _Dumper(yaml.SafeDumper):
  """Writes a list of numbers in a line, and everything whole."""

  def ignore_aliases(self, data: Any) -> bool:
    return True


def _numbers(dumper: yaml.SafeDumper, data: list) -> yaml.Node:
  in_line = bool(data) and all(isinstance(item, int) for item in data)
  return dumper.represent_sequence(
    "tag:yaml.org,2002:seq", data, flow_style=in_line
  )


_Dumper.add_representer(list, _numbers)


def render(settings: Settings, command: Program) -> str:
  """The manifest of a command."""
  text = yaml.dump(
    jobset(settings, command),
    Dumper=_Dumper,
    sort_keys=False,
    allow_unicode=False,
  )
  assert isinstance(text, str)
  return text


def jobset(settings: Settings, command: Program) -> dict[str, Any]:
  """The same as values."""
  metadata: dict[str, Any] = {
    "name": settings.name,
    "namespace": settings.namespace,
  }
  machines = settings.machines
  pods = settings.slices * machines.hosts
  if machines.resource == "google.com/tpu" and pods > 1:
    # A slice is a node pool: the pods of one go into one, and no others.
    metadata["annotations"] = {
      "alpha.jobset.sigs.k8s.io/exclusive-topology": _POOL
    }
  replicated = {
    "name": "main",
    "replicas": settings.slices,
    "template": {"spec": _job(settings, command)},
  }
  failure = {
    "maxRestarts": settings.max_restarts,
    # Else the old pods and the new ones could meet in one workdir.
    "restartStrategy": "BlockingRecreate",
    "rules": [
      {
        "name": "wouldComeAgain",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
      }
    ],
  }
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": metadata,
    "spec": {"failurePolicy": failure, "replicatedJobs": [replicated]},
  }


def _job(settings: Settings, command: Program) -> dict[str, Any]:
  """One slice: a pod for each host, all of which end with the first failure."""
  # A machine that is taken away may end main.py in any way.
  taken_away = {
    "action": "Count",
    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
  }
  would_come_again = {
    "action": "FailJob",
    "onExitCodes": {
      "containerName": "main",
      "operator": "NotIn",
      "values": sorted(exit_status.AGAIN),
    },
  }
  return {
    "backoffLimit": 0,
    "completionMode": "Indexed",
    "completions": settings.machines.hosts,
    "parallelism": settings.machines.hosts,
    "podFailurePolicy": {"rules": [taken_away, would_come_again]},
    "template": _pod(settings, command),
  }


def _pod(settings: Settings, command: Program) -> dict[str, Any]:
  chips = {settings.machines.resource: settings.machines.host_chips}
  container = {
    "name": "main",
    "image": settings.image,
    "args": arguments(settings, command),
    "resources": {"limits": chips, "requests": chips},
    # The last lines of a failure can then be read from the pod's status.
    "terminationMessagePolicy": "FallbackToLogsOnError",
    "volumeMounts": [
      {"name": "shared", "mountPath": str(settings.folder.mount)},
      {"name": "memory", "mountPath": "/dev/shm"},
    ],
  }
  spec: dict[str, Any] = {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": settings.grace_seconds,
    "nodeSelector": dict(settings.machines.selector),
    "containers": [container],
    "volumes": [
      {"name": "shared"} | _shared(settings),
      # By default it has 64 MB, of which worker processes need more.
      {"name": "memory", "emptyDir": {"medium": "Memory"}},
    ],
  }
  if settings.service_account:
    spec["serviceAccountName"] = settings.service_account
  if settings.spot:
    spec["nodeSelector"][_SPOT] = "true"
    toleration = {"key": _SPOT, "operator": "Equal", "value": "true"}
    spec["tolerations"] = [toleration | {"effect": "NoSchedule"}]
  if not settings.folder.bucket:
    return {"spec": spec}
  annotations = {"gke-gcsfuse/volumes": "true"}
  return {"metadata": {"annotations": annotations}, "spec": spec}


def _shared(settings: Settings) -> dict[str, Any]:
  if not settings.folder.bucket:
    server, _, path = settings.folder.nfs.partition(":")
    return {"nfs": {"server": server, "path": path}}
  # A folder need not be an object of its own; files belong to the user.
  options = f"implicit-dirs,uid={USER_ID},gid={USER_ID}"
  attributes = {"bucketName": settings.folder.bucket, "mountOptions": options}
  driver = "gcsfuse.csi.storage.gke.io"
  return {"csi": {"driver": driver, "volumeAttributes": attributes}}


def arguments(settings: Settings, command: Program) -> list[str]:
  """The container's, of which Kubernetes makes the flags of main.py."""
  # It replaces $(NAME), and $$ is a dollar.
  words = [flag.replace("$", "$$") for flag in command.flags]
  machines = settings.machines
  # TPU hosts find each other by what the node pool puts into their environment.
  if machines.resource == "nvidia.com/gpu" and machines.hosts > 1:
    words += [
      # The first pod, by the name that the JobSet's service gives it.
      f"--coordinator={settings.name}-main-0-0.{settings.name}:{PORT}",
      "--process_id=$(JOB_COMPLETION_INDEX)",
      f"--num_processes={machines.hosts}",
    ]
  return words
