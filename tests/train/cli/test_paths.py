"""Paths that cannot be written are refused with the flag that names them."""

import pytest

from train.cli.paths import check_path
from train.errors import Refusal


def test_a_folder_must_not_be_a_file(tmp_path):
  (tmp_path / "file").write_text("")
  for path in (tmp_path / "file", tmp_path / "file/run"):
    with pytest.raises(Refusal, match=r"--workdir=.*file is a file; choose"):
      check_path("workdir", str(path))
  check_path("workdir", str(tmp_path / "new"))
  check_path("output", str(tmp_path / "file"))


@pytest.mark.parametrize("flag", ["workdir", "output"])
def test_a_bucket_is_refused(flag):
  with pytest.raises(Refusal, match=f"--{flag}=gs://b/run: .*mount"):
    check_path(flag, "gs://b/run")
  check_path(flag, "runs/a:b")
