"""Commands of gcloud and scripts of the hosts, for a run on TPU VMs."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from launch.cloud.shared_folder import SharedFolder
from launch.program import Program

ROOT = Path(__file__).parents[2]
# What a run needs of the checkout.
FILES = (
  *("LICENSE", "README.md", "constraints.txt", "main.py", "pyproject.toml"),
  *("configs", "data", "encdec", "launch", "train"),
)
# What each host's last line begins with; its name and main.py's status follow.
ENDED = "encdec-host-ended"
_ARCHIVE = "encdec.tar.gz"
_TPUS = ("gcloud", "compute", "tpus")

# A new machine updates itself, and holds the lock of its packages meanwhile.
SET_UP = r"""
set -euo pipefail
packages() { sudo apt-get -o DPkg::Lock::Timeout=300 --yes --quiet "$@"; }
mkdir -p ~/encdec
tar -xzf ~/@archive@ -C ~/encdec
if ! command -v @python@ >/dev/null; then
  packages update
  packages install @python@ @python@-venv
fi
cd ~/encdec
[[ -x .venv/bin/python ]] || @python@ -m venv .venv
.venv/bin/pip install --quiet -c constraints.txt -e '.[train,tpu]'
if ! mountpoint -q -- @mount@; then
  sudo mkdir -p -- @mount@
  @do_mount@
fi
"""
# Ubuntu's archive has no gcsfuse: Google's has, for each release of Ubuntu.
BUCKET = """\
if ! command -v gcsfuse >/dev/null; then
    google=https://packages.cloud.google.com/apt
    key=/usr/share/keyrings/cloud.google.asc
    curl -fsSL "$google/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] $google gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    packages update
    packages install gcsfuse
  fi
  sudo chown "$USER" -- @mount@
  gcsfuse --implicit-dirs -- @bucket@ @mount@"""
NFS = """\
packages update
  packages install nfs-common
  sudo mount -t nfs -- @nfs@ @mount@"""
# A start whose connection was lost may still run: it has the chips.
RUN = r"""
cd ~/encdec || exit 1
stop() {
  [[ -s main.pid ]] && kill -TERM "$(cat main.pid)" 2>/dev/null || return 0
  for _ in {1..@grace_seconds@}; do
    kill -0 "$(cat main.pid)" 2>/dev/null || return 0
    sleep 1
  done
  kill -KILL "$(cat main.pid)" 2>/dev/null
}
stop
.venv/bin/python main.py @flags@ </dev/null &
echo $! >main.pid
wait $!
status=$?
rm -f main.pid
echo "@ended@ $(hostname) $status"
exit $status
"""
STOP = 'kill -TERM "$(cat ~/encdec/main.pid)"'


@dataclasses.dataclass(frozen=True)
class TpuVm:
  """A queued resource, and what runs on its hosts.

  Attributes:
    project: empty: gcloud's own.
    slices: nodes, as gcloud calls them.
    python: of the hosts, such as "python3.11".
  """

  name: str
  project: str
  zone: str
  accelerator_type: str
  version: str
  spot: bool
  slices: int
  folder: SharedFolder
  python: str
  grace_seconds: int

  @property
  def nodes(self) -> list[str]:
    if self.slices == 1:
      return [self.name]
    return [f"{self.name}-{number}" for number in range(self.slices)]

  def create(self) -> list[str]:
    nodes = (
      [f"--node-id={self.name}"]
      if self.slices == 1
      else [f"--node-count={self.slices}", f"--node-prefix={self.name}"]
    )
    return self._queued(
      "create",
      *nodes,
      f"--accelerator-type={self.accelerator_type}",
      f"--runtime-version={self.version}",
      *(["--spot"] if self.spot else []),
    )

  def describe(self) -> list[str]:
    return self._queued("describe", "--format=value(state.state)")

  def delete(self) -> list[str]:
    return self._queued("delete", "--force")

  def _queued(self, verb: str, *flags: str) -> list[str]:
    words = [*_TPUS, "queued-resources", verb, self.name, *flags]
    return [*words, *self._where(), "--quiet"]

  def _where(self) -> list[str]:
    project = [f"--project={self.project}"] if self.project else []
    return [*project, f"--zone={self.zone}"]

  def pack(self, folder: str) -> list[str]:
    archive = ["-czf", f"{folder}/{_ARCHIVE}", "-C", str(ROOT), *FILES]
    return ["tar", "--exclude=__pycache__", *archive]

  def copy(self, node: str, folder: str) -> list[str]:
    words = [*_TPUS, "tpu-vm", "scp", f"{folder}/{_ARCHIVE}", f"{node}:"]
    return [*words, *self._where(), "--worker=all", "--quiet"]

  def ssh(self, node: str, script: str) -> list[str]:
    words = [*_TPUS, "tpu-vm", "ssh", node, *self._where()]
    return [*words, "--worker=all", "--quiet", f"--command={script}"]

  def set_up(self) -> str:
    """What makes a host ready: the code, what it needs, the shared folder."""
    script = SET_UP.replace("@do_mount@", BUCKET if self.folder.bucket else NFS)
    for place, value in {
      "archive": _ARCHIVE,
      "python": self.python,
      "mount": str(self.folder.mount),
      "bucket": self.folder.bucket,
      "nfs": self.folder.nfs,
    }.items():
      script = script.replace(f"@{place}@", shlex.quote(value))
    return script

  def run(self, command: Program) -> str:
    """What runs main.py on a host, and says how it ended."""
    script = RUN.replace("@grace_seconds@", str(self.grace_seconds))
    script = script.replace("@ended@", ENDED)
    return script.replace("@flags@", shlex.join(command.flags))

  def whole(self, command: Program) -> str:
    """A script that does all of it once, to the end."""
    lines = ["#!/usr/bin/env bash", "set -euo pipefail", "folder=$(mktemp -d)"]
    lines += [_line(self.create())]
    lines += [
      f'until [[ "$({_line(self.describe())})" == ACTIVE ]]; do sleep 30; done',
      _line(self.pack("$folder")),
    ]
    for node in self.nodes:
      lines += [
        _line(self.copy(node, "$folder")),
        _line(self.ssh(node, self.set_up())),
      ]
    lines += ["status=0", "started=()"]
    for node in self.nodes:
      run = _line(self.ssh(node, self.run(command)))
      lines += [f"{run} &", "started+=($!)"]
    lines += [
      'for process in "${started[@]}"; do',
      '  wait "$process" || status=$?',
      "done",
      _line(self.delete()),
      "exit $status",
    ]
    return "\n".join(lines) + "\n"


def _line(words: Sequence[str]) -> str:
  """A command for a shell, in which $folder is a variable."""
  quoted = []
  for word in words:
    if word.startswith("$folder"):
      quoted.append(f'"{word}"')
    else:
      quoted.append(shlex.quote(word))
  return " ".join(quoted)
