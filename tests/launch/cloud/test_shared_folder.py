"""The folder that every host sees."""

import pytest
from absl import flags

from launch.cloud import shared_folder
from launch.program import Program, Refusal


def read(*words: str) -> shared_folder.SharedFolder:
  own = flags.FlagValues()
  shared_folder.define(own)
  own(["launcher", *words])
  return shared_folder.read(own)


@pytest.mark.parametrize(
  ("words", "workdir"),
  [
    (("--bucket=b1",), "/bucket/runs/a"),
    (("--nfs=host:/x",), "/nfs/a"),
    (("--nfs=host:/x", "--mount=/home/me/runs"), "/home/me/runs/a/"),
  ],
)
def test_a_workdir_lies_in_it(words, workdir):
  read(*words).check(Program((f"--workdir={workdir}",)))


@pytest.mark.parametrize(
  "workdir", ["/bucket", "bucket/a", "/buckets/a", "/bucket/../a", "gs://b/a"]
)
def test_another_folder_is_not_seen_by_every_host(workdir):
  with pytest.raises(Refusal, match="is not seen by every host"):
    read("--bucket=b1").check(Program((f"--workdir={workdir}",)))
