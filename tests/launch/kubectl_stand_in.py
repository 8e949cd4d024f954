"""Stands in for kubectl and a cluster with JobSet, of pods that run main.py.

What is applied runs in the background, restarted as the manifest says; the
cluster is the folder STAND_IN_KUBECTL, and main.py is STAND_IN_MAIN.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import yaml

CLUSTER = Path(os.environ["STAND_IN_KUBECTL"])


def note(words) -> None:
  with open(CLUSTER / "calls", "a") as file:
    file.write(json.dumps(words) + "\n")


def update(name: str, **values) -> None:
  path = CLUSTER / f"{name}.json"
  old = json.loads(path.read_text()) if path.exists() else {}
  partial = CLUSTER / f"{name}.{os.getpid()}"
  partial.write_text(json.dumps(old | values))
  partial.rename(path)


def expand(text: str, variables: dict[str, str]) -> str:
  """As Kubernetes does: $$ is $, $(A) a variable that there is."""

  def replace(match):
    if match[0] == "$$":
      return "$"
    return variables.get(match[1], match[0])

  return re.sub(r"\$\$|\$\(([^)]*)\)", replace, text)


def apply(arguments) -> int:
  assert arguments[:2] == ["-f", "-"]
  if (CLUSTER / "refuse").exists():
    said = 'error: no matches for kind "JobSet"'
    print(f"{said}\nensure CRDs are installed first", file=sys.stderr)
    return 1
  text = sys.stdin.read()
  manifest = yaml.safe_load(text)
  name = manifest["metadata"]["name"]
  if (CLUSTER / f"{name}.json").exists():
    print(f"jobset.jobset.x-k8s.io/{name} unchanged")
    return 0
  (CLUSTER / f"{name}.yaml").write_text(text)
  subprocess.Popen(
    [sys.executable, __file__, "controller", name],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )
  update(name, state="", restarts=0)
  print(f"jobset.jobset.x-k8s.io/{name} created")
  return 0


def controller(arguments) -> int:
  (name,) = arguments
  end = time.monotonic() + 10
  while not (CLUSTER / f"{name}.json").exists():
    if time.monotonic() > end:
      return 1
    time.sleep(0.02)
  spec = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())["spec"]
  job = spec["replicatedJobs"][0]["template"]["spec"]
  pod = job["template"]["spec"]
  (rule,) = [r for r in job["podFailurePolicy"]["rules"] if "onExitCodes" in r]
  restarts = spec["failurePolicy"]["maxRestarts"]
  while True:
    words = [
      expand(word, {"JOB_COMPLETION_INDEX": "0"})
      for word in pod["containers"][0]["args"]
    ]
    done = subprocess.run(
      [sys.executable, os.environ["STAND_IN_MAIN"], *words],
      capture_output=True,
      text=True,
    )
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode
    pods = [{"exitCode": status, "message": done.stderr}]
    if status == 0:
      update(name, state="Completed", pods=pods)
      return 0
    if status not in rule["onExitCodes"]["values"] or restarts == 0:
      update(name, state="Failed", pods=pods)
      return 0
    restarts -= 1


def items(name: str = "") -> list[tuple[str, dict]]:
  return [
    (path.stem, json.loads(path.read_text()))
    for path in sorted(CLUSTER.glob("*.json"))
    if name in ("", path.stem)
  ]


def get(arguments) -> int:
  what, *rest = arguments
  if what == "jobset":
    for name, _ in items(rest[0]):
      print(f"NAME\n{name}")
  elif what == "jobsets":
    listed = [
      {"metadata": {"name": name}, "status": {"terminalState": value["state"]}}
      for name, value in items()
    ]
    print(json.dumps({"items": listed}))
  else:
    (selector,) = [w for w in rest if w.startswith("--selector=")]
    listed = [
      {
        "status": {
          "containerStatuses": [
            {"name": "gcsfuse", "state": {"terminated": {"exitCode": 255}}},
            {"name": "main", "state": {"terminated": pod}},
          ]
        }
      }
      for _, value in items(selector.rpartition("=")[2])
      for pod in value["pods"]
    ]
    print(json.dumps({"items": listed}))
  return 0


if __name__ == "__main__":
  verb, *given = sys.argv[1:]
  if verb == "kubectl":
    note(given)
    verb, *given = given
  sys.exit(globals()[verb](given))
