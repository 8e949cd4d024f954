"""What a run says of the weights that it starts from."""

from absl import logging

from encdec import hub

# What to change in a configuration when weights do not fit.
REMEDIES = hub.Remedies(
  missing="name a checkpoint that holds them in model.{side}",
  mismatched="or for a longer table of positions set model.position_extension",
  unshared="set model.share = 'none'",
  extension="model.position_extension",
)


def tell(report: hub.LoadingReport) -> None:
  """Logs what was read and drawn, and warns of a head that was drawn."""
  logging.info("%s", report.summary())
  if warning := report.warning():
    logging.warning("%s", warning)
