"""Stands in for gcloud and TPU VMs; each slice is a folder of this machine.

STAND_IN_GCLOUD holds `plan`: the lives of the TPUs that are created, one after
another, each a list of the states that it answers, of which the last one stays.
While `silent` is there, nothing answers of its state. `closed` holds an x for
each set-up that fails. By `cut` what is created is not known to be, and by
`raced` another command was first.
"""

import json
import os
import sys
from pathlib import Path

CLOUD = Path(os.environ["STAND_IN_GCLOUD"])


def note(words) -> None:
  with open(CLOUD / "calls", "a") as file:
    file.write(json.dumps(words) + "\n")


def create() -> int:
  if (CLOUD / "life").exists() or (CLOUD / "raced").exists():
    print("ERROR: ALREADY_EXISTS: Resource already exists", file=sys.stderr)
    return 1
  if (CLOUD / "refuse").exists():
    said = "ERROR: (gcloud.compute.tpus.queued-resources.create) no quota"
    print(said, file=sys.stderr)
    return 1
  lives = json.loads((CLOUD / "plan").read_text())
  (CLOUD / "plan").write_text(json.dumps(lives[1:]))
  (CLOUD / "life").write_text(json.dumps(lives[0]))
  if (CLOUD / "cut").exists():
    print("ERROR: (gcloud) connection timed out", file=sys.stderr)
    return 1
  return 0


def describe() -> int:
  if (CLOUD / "silent").exists():
    print("ERROR: (gcloud) connection timed out", file=sys.stderr)
    return 1
  if (CLOUD / "life").exists() and (CLOUD / "life").read_text() == "[null]":
    (CLOUD / "life").unlink()
  if not (CLOUD / "life").exists():
    print("ERROR: NOT_FOUND: Resource was not found", file=sys.stderr)
    return 1
  states = json.loads((CLOUD / "life").read_text())
  if len(states) > 1:
    (CLOUD / "life").write_text(json.dumps(states[1:]))
  print(states[0])
  return 0


def delete() -> int:
  if not (CLOUD / "life").exists():
    print("ERROR: NOT_FOUND: Resource was not found", file=sys.stderr)
    return 1
  if json.loads((CLOUD / "life").read_text())[0] in ("SUSPENDING", "DELETING"):
    print("ERROR: FAILED_PRECONDITION: it is busy", file=sys.stderr)
    return 1
  # After which there is nothing.
  (CLOUD / "life").write_text(json.dumps(["DELETING", None]))
  return 0


def ssh(home: Path, script: str) -> int:
  if "pip install" in script:
    closed = CLOUD / "closed"
    if closed.exists() and (left := closed.read_text()):
      closed.write_text(left[1:])
      print("ssh: connect to host: Connection refused", file=sys.stderr)
      return 255
    # The environment is this one, and main.py another.
    code = home / "encdec"
    assert (home / "encdec.tar.gz").exists()
    (code / ".venv/bin").mkdir(parents=True, exist_ok=True)
    python = code / ".venv/bin/python"
    python.unlink(missing_ok=True)
    python.write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    text = Path(os.environ["STAND_IN_MAIN"]).read_text()
    (code / "main.py").write_text(text)
    return 0
  environment = os.environ | {"HOME": str(home)}
  os.execvpe("bash", ["bash", "-c", script], environment)


def scp(home: Path, source: str) -> int:
  home.mkdir(exist_ok=True)
  data = Path(source).read_bytes()
  (home / Path(source).name).write_bytes(data)
  return 0


def main(words: list[str]) -> int:
  note(words)
  assert words[:2] == ["compute", "tpus"] and "--quiet" in words
  assert any(word.startswith("--zone=") for word in words)
  verb, *given = words[3:]
  if words[2] == "queued-resources":
    return {"create": create, "describe": describe, "delete": delete}[verb]()
  assert "--worker=all" in given
  if verb == "scp":
    assert given[1].endswith(":")
    return scp(CLOUD / given[1][:-1], given[0])
  (script,) = [w for w in given if w.startswith("--command=")]
  return ssh(CLOUD / given[0], script.removeprefix("--command="))


if __name__ == "__main__":
  sys.exit(main(sys.argv[2:]))
