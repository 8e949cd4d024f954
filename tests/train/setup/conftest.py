"""An export of a finished run, shared by the tests of saved pairs."""

import pytest

from train.modes import export

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="session")
def exported(finished, tmp_path_factory):
  """The export of a run with beams, as it was generated with."""
  config, folder, _ = finished
  output = tmp_path_factory.mktemp("exported") / "hub"
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.generation.num_beams = 3
    config.generation.min_length = 2
    config.generation.options = '{"repetition_penalty": 1.3}'
  export.run(config, str(folder), step=4, output=str(output))
  return output
