"""The folder that every host of a run sees: a bucket, or an NFS server's."""

import dataclasses
import re
from pathlib import PurePosixPath

from absl import flags

from launch import program
from launch.program import Program, Refusal

MOUNTS = {"bucket": "/bucket", "nfs": "/nfs"}


@dataclasses.dataclass(frozen=True)
class SharedFolder:
  """Where a run's workdir must lie.

  Attributes:
    bucket: of Cloud Storage; empty: nfs is "server:/path".
    mount: where the hosts find it.
  """

  bucket: str
  nfs: str
  mount: PurePosixPath

  def check(self, command: Program) -> None:
    """Raises Refusal where the workdir does not lie in it."""
    folder = PurePosixPath(command.workdir)
    if self.mount not in folder.parents or ".." in folder.parts:
      raise Refusal(
        f"--workdir={command.workdir} is not seen by every host: the shared "
        f"folder is {self.mount}, as in --workdir={self.mount}/runs/name"
      )


def define(own: flags.FlagValues) -> None:
  """The flags that name one."""
  for name, what in (
    ("bucket", "Of Cloud Storage, mounted at --mount."),
    ("nfs", "In place of --bucket: server:/path."),
    ("mount", "Where the hosts find it; by default /bucket or /nfs."),
  ):
    flags.DEFINE_string(name, "", what, flag_values=own)


def read(own: flags.FlagValues) -> SharedFolder:
  """The folder that the flags name.

  Raises:
    Refusal: they name none, or two, or none that there can be.
  """
  value = program.values(own)
  bucket, nfs = value("bucket"), value("nfs")
  if bool(bucket) == bool(nfs):
    raise Refusal(
      "pass one of --bucket and --nfs: every host must see the workdir, as "
      "--bucket=my-bucket -- --workdir=/bucket/runs/name"
    )
  if bucket and not re.fullmatch(r"[a-z0-9][-_.a-z0-9]+", bucket):
    raise Refusal(
      f"--bucket={bucket}: write its name alone, as --bucket=my-bucket"
    )
  if nfs and not re.fullmatch(r"[^:/\s]+:/\S*", nfs):
    raise Refusal(f"--nfs={nfs}: write server:/path, as --nfs=10.0.0.2:/runs")
  mount = value("mount") or MOUNTS["bucket" if bucket else "nfs"]
  path = PurePosixPath(mount)
  if not path.is_absolute() or str(path) == "/":
    raise Refusal(f"--mount={mount}: write a folder from the root, /bucket")
  return SharedFolder(bucket, nfs, path)
