"""Commands of gcloud for slices."""

from pathlib import PurePosixPath

import pytest

from launch.cloud.shared_folder import SharedFolder
from launch.cloud.tpu_commands import FILES, ROOT, TpuVm


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


def test_the_shared_folder_is_mounted():
  assert "gcsfuse --implicit-dirs -- bb /bucket" in machines().set_up()
  nfs = SharedFolder("", "host:/a", PurePosixPath("/nfs"))
  script = machines(folder=nfs).set_up()
  assert "mount -t nfs -- host:/a /nfs" in script and "gcsfuse" not in script
