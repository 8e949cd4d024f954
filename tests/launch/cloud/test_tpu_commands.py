"""Commands of gcloud for slices."""

import os
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from launch.cloud.shared_folder import SharedFolder
from launch.cloud.tpu_commands import FILES, ROOT, TpuVm
from launch.program import Program

GOLDEN = Path(__file__).parents[1] / "golden"


def machines(**changes) -> TpuVm:
  values = {
    "name": "b2b",
    "project": "",
    "zone": "us-west4-a",
    "accelerator_type": "v5litepod-16",
    "version": "v2",
    "spot": False,
    "slices": 1,
    "folder": SharedFolder("bb", "", PurePosixPath("/bucket")),
    "python": "python3.11",
    "grace_seconds": 10,
  }
  return TpuVm(**(values | changes))


COMMAND = Program(
  (
    "--config=configs/bert2bert_cnn_dailymail.py:pod",
    "--workdir=/bucket/runs/b2b",
    "--config.a=it's $x",
  )
)


def shown(script: str) -> str:
  """Without what differs from machine to machine."""
  return script.replace(str(ROOT), "/code")


GOLDENS = {
  "tpu_vm_slice.sh": machines(spot=True, project="p").whole(COMMAND),
  "tpu_vm_slices.sh": machines(
    slices=2, folder=SharedFolder("", "10.0.0.2:/a", PurePosixPath("/nfs"))
  ).whole(COMMAND),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_the_commands_are_the_golden_ones(name):
  assert shown(GOLDENS[name]) == (GOLDEN / name).read_text()


@pytest.mark.parametrize(
  ("slices", "nodes", "flags"),
  [
    (1, ["b2b"], ["--node-id=b2b"]),
    (2, ["b2b-0", "b2b-1"], ["--node-count=2", "--node-prefix=b2b"]),
  ],
)
def test_a_slice_is_a_node(slices, nodes, flags):
  found = machines(slices=slices)
  assert found.nodes == nodes
  assert [w for w in found.create() if w.startswith("--node")] == flags


def test_a_project_is_named_where_one_is_given():
  assert "--project=p" in machines(project="p").delete()
  assert not [w for w in machines().delete() if "project" in w]


def test_the_checkout_has_what_is_packed():
  assert all((ROOT / name).exists() for name in FILES)


@pytest.mark.parametrize(
  "folder",
  [
    SharedFolder("bb", "", PurePosixPath("/bucket")),
    SharedFolder("", "host:/a", PurePosixPath("/nfs")),
  ],
)
def test_packages_are_waited_for(folder):
  lines = machines(folder=folder).set_up().splitlines()
  (call,) = [line for line in lines if "apt-get" in line]
  assert "-o DPkg::Lock::Timeout=300 " in call


# In place of what changes a machine, or reaches another one: says what it does,
# and what it is given.
MACHINE = """
tar() { :; }
mkdir() { :; }
cd() { :; }
mountpoint() { return 1; }
lsb_release() { echo jammy; }
curl() { echo "a key of ${!#}"; }
gcsfuse() { echo "gcsfuse $*"; }
sudo() {
  echo "$*" >>"$HOME/called"
  if [[ $1 == tee ]]; then cat >>"$HOME/called"; fi
}
command() { [[ $2 != gcsfuse ]]; }
python3.11() { :; }
"""


def test_gcsfuse_is_installed_from_the_archive_that_has_it(tmp_path):
  python = tmp_path / "encdec/.venv/bin"
  python.mkdir(parents=True)
  (python / "pip").symlink_to("/bin/true")
  (python / "python").symlink_to("/bin/true")
  script = MACHINE + machines().set_up()
  done = subprocess.run(
    ["bash", "-c", script],
    cwd=tmp_path / "encdec",
    env=os.environ | {"HOME": str(tmp_path), "USER": "me"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  lines = (tmp_path / "called").read_text().splitlines()
  key = "/usr/share/keyrings/cloud.google.asc"
  google = "https://packages.cloud.google.com/apt"
  packages = "apt-get -o DPkg::Lock::Timeout=300 --yes --quiet"
  assert lines == [
    "mkdir -p -- /bucket",
    f"tee {key}",
    f"a key of {google}/doc/apt-key.gpg",
    "tee /etc/apt/sources.list.d/gcsfuse.list",
    f"deb [signed-by={key}] {google} gcsfuse-jammy main",
    f"{packages} update",
    f"{packages} install gcsfuse",
    "chown me -- /bucket",
  ]
  assert done.stdout == "gcsfuse --implicit-dirs -- bb /bucket\n"


def test_the_shared_folder_is_mounted():
  assert "gcsfuse --implicit-dirs -- bb /bucket" in machines().set_up()
  nfs = SharedFolder("", "host:/a", PurePosixPath("/nfs"))
  script = machines(folder=nfs).set_up()
  assert "mount -t nfs -- host:/a /nfs" in script and "gcsfuse" not in script
