"""Runs commands of main.py in one process, up to what would compute.

Reads a list of command lines as JSON from stdin; the last line of stdout is an
object with what became of each, and how many programs were compiled.
"""

import json
import sys
import traceback

from absl import flags

sys.path.insert(0, ".")

import jax

import main
from train import start

FLAGS = flags.FLAGS
OWN = [*FLAGS]
compiled = []


class Accepted(Exception):
  """The command is right."""


def accept(*_):
  raise Accepted


def answer(argv: list[str]) -> tuple[str, str]:
  # Flags of overrides are defined when they are met.
  for name in set(FLAGS) - {*OWN}:
    delattr(FLAGS, name)
  for name in OWN:
    FLAGS[name].unparse()
    FLAGS[name].present = 0
  FLAGS.unparse_flags()
  sys.modules.pop("config_config", None)
  main.ARGUMENTS.clear()
  try:
    try:
      main.main(main.parse(argv))
    except Accepted:
      return "accepted", " ".join(argv)
    except Exception as error:
      main.ended(error)
  except SystemExit as ended:
    return "refused", str(ended.code).removeprefix("error: ")
  except BaseException:
    return "crashed", traceback.format_exc()
  return "accepted", " ".join(argv)


def end(status, sentence):
  raise SystemExit(sentence)


# A process that prepares data imports this file too.
if __name__ == "__main__":
  start.begin = accept
  main.signals.end = end
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **unused: (
      compiled.append(event) if "backend_compile" in event else None
    )
  )
  answers = [answer(argv) for argv in json.load(sys.stdin)]
  print(json.dumps({"answers": answers, "compiled": len(compiled)}))
