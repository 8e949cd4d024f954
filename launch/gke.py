"""A run on Google Kubernetes Engine: a JobSet, restarted where it was stopped.

  python -m launch.gke --image=REPO/encdec:1 --topology=v5e:4x4 --num_slices=2 \
    --bucket=my-bucket -- --config=configs/bert2bert_cnn_dailymail.py:pod \
    --workdir=/bucket/runs/b2b
  python -m launch.gke --image=... --gpu=h100:8 --nodes=2 --nfs=10.0.0.2:/runs \
    -- --config=... --workdir=/nfs/b2b

prints the JobSet's name. --dry_run prints the manifest instead, which
`kubectl apply -f -` takes. The cluster must have JobSet installed, node pools
of these machines, and for --bucket the Cloud Storage FUSE driver. The image is
that of launch/Dockerfile.

A machine that is preempted or lost, and an end of main.py that another start
can mend, restart all of the JobSet, --max_restarts times at most.
"""

from launch import early

if __name__ == "__main__":
  early.watch()

import json
from collections.abc import Mapping, Sequence

from absl import flags

from launch import cluster_command, exit_status, program
from launch.cloud import accelerators, jobset, shared_folder
from launch.program import Program, Refusal

_NAME_LABEL = "jobset.sigs.k8s.io/jobset-name"
OWN = flags.FlagValues()


def define(own: flags.FlagValues) -> None:
  """The flags of this launcher."""

  def text(name: str, what: str, default: str = "") -> None:
    flags.DEFINE_string(name, default, what, flag_values=own)

  def number(name: str, default: int, lowest: int, what: str) -> None:
    flags.DEFINE_integer(
      name, default, what, lower_bound=lowest, flag_values=own
    )

  text("image", "Made from launch/Dockerfile.")
  text("topology", "Of a slice of TPUs: v5e:4x4, v5p:2x2x4.")
  number("num_slices", 1, 1, "Slices joined by the network.")
  text("gpu", "In place of --topology, GPUs of a machine: h100:8.")
  number("nodes", 1, 1, "Machines with GPUs.")
  shared_folder.define(own)
  text("name", "Of the JobSet; by default of the workdir.")
  text("namespace", "Of Kubernetes.", "default")
  text("service_account", "Of Kubernetes, with access to the bucket.")
  flags.DEFINE_bool("spot", False, "On Spot machines.", flag_values=own)
  number("grace_seconds", 300, 1, "From SIGTERM to SIGKILL.")
  number("max_restarts", 20, 0, "Of the whole JobSet, preemptions included.")
  flags.DEFINE_bool("dry_run", False, "Print the manifest.", flag_values=own)


define(OWN)


class Gke:
  """JobSets by kubectl."""

  def __init__(self, own: flags.FlagValues) -> None:
    """Checks what the flags say.

    Raises:
      Refusal: the image, the machines or the shared folder are missing, or
        there are none like these.
    """
    self.value = program.values(own)
    value = self.value
    if not value("image"):
      raise Refusal(
        "--image is missing: pass one that was made from launch/Dockerfile, as "
        "--image=registry.example/encdec:1"
      )
    if bool(value("topology")) == bool(value("gpu")):
      raise Refusal(
        "pass one of --topology and --gpu: the machines, as --topology=v5e:4x4 "
        "or --gpu=h100:8"
      )
    self.machines = (
      accelerators.tpu_slice(value("topology"))
      if value("topology")
      else accelerators.gpu_hosts(value("gpu"), value("nodes"))
    )
    for flag, needs in (("num_slices", "topology"), ("nodes", "gpu")):
      if value(flag) > 1 and not value(needs):
        raise Refusal(
          f"--{flag}={value(flag)} belongs to --{needs}: leave it out"
        )
    self.folder = shared_folder.read(own)

  def name(self, command: Program) -> str:
    self.folder.check(command)
    return program.check_name(self.value("name") or program.name_of(command))

  def render(self, command: Program, name: str) -> str:
    """The manifest."""
    self.folder.check(command)
    value = self.value
    settings = jobset.Settings(
      name=name,
      namespace=value("namespace"),
      image=value("image"),
      machines=self.machines,
      slices=value("num_slices"),
      folder=self.folder,
      service_account=value("service_account"),
      spot=value("spot"),
      grace_seconds=value("grace_seconds"),
      max_restarts=value("max_restarts"),
    )
    return jobset.render(settings, command)

  def submit(self, command: Program, name: str) -> str:
    """Creates the JobSet; returns its name.

    Raises:
      Refusal: the cluster does not take it, or has it already.
    """
    manifest = self.render(command, name)
    said = cluster_command.call(["kubectl", "apply", "-f", "-"], manifest)
    if said.strip().endswith("unchanged"):
      raise Refusal(
        f"--name={name}: this JobSet is there already, running or ended: pass "
        f"another --name, or first {self.cancel_command([name])}"
      )
    return name

  def find(self, name: str, command: Program) -> str | None:
    """The name, where the cluster has such a JobSet."""
    listing = self._kubectl("get", "jobset", name, "--ignore-not-found")
    return name if cluster_command.call(listing).strip() else None

  def ended(self, jobs: Mapping[str, Program]) -> dict[str, exit_status.Ended]:
    """Those JobSets, by their names, that have ended or are gone."""
    listing = self._kubectl("get", "jobsets", "--output=json")
    found = {
      item["metadata"]["name"]: item.get("status", {})
      for item in json.loads(cluster_command.call(listing))["items"]
    }
    ended = {}
    for name in jobs:
      state = found.get(name, {}).get("terminalState", "")
      if name not in found:
        ended[name] = exit_status.Ended(None, "the JobSet is gone")
      elif state == "Completed":
        ended[name] = exit_status.Ended(exit_status.FINISHED)
      elif state == "Failed":
        ended[name] = self._failure(name, found[name])
    return ended

  def _failure(self, name: str, status: dict) -> exit_status.Ended:
    """What its pods say of it; else what the JobSet says."""
    listing = self._kubectl(
      "get", "pods", f"--selector={_NAME_LABEL}={name}", "--output=json"
    )
    ends = []
    for pod in json.loads(cluster_command.call(listing))["items"]:
      for container in pod.get("status", {}).get("containerStatuses", []):
        end = container.get("state", {}).get("terminated") or {}
        if container["name"] == "main" and end.get("exitCode"):
          message = cluster_command.last_line(end.get("message", ""))
          ends.append((end["exitCode"], message))
    if ends:
      # Others were ended because of the one that would come again.
      again = exit_status.runs_again
      return exit_status.Ended(*max(ends, key=lambda e: (not again(e[0]), e)))
    conditions = status.get("conditions", [])
    said = [c.get("message", "") for c in conditions if c["type"] == "Failed"]
    return exit_status.Ended(None, (said or [""])[-1])

  def cancel_command(self, jobs: Sequence[str]) -> str:
    return " ".join(self._kubectl("delete", "jobset", *jobs))

  def _kubectl(self, *words: str) -> list[str]:
    return ["kubectl", *words, f"--namespace={self.value('namespace')}"]


def launch(command: Program) -> int:
  """Creates the JobSet, or prints its manifest."""
  gke = Gke(OWN)
  name = gke.name(command)
  if OWN["dry_run"].value:
    print(gke.render(command, name), end="")
  else:
    early.watch(f"ask whether it was created: kubectl get jobset {name}")
    print(gke.submit(command, name))
  return 0


if __name__ == "__main__":
  program.launch(__doc__, OWN, launch)
