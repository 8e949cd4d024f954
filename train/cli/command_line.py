"""What a command line may say: flags, modes and overrides.

Like `validate`, it refuses with the thing, its value and the fix.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections.config_flags import tuple_parser

from train.cli import config_file
from train.cli.paths import check_path
from train.config import Config
from train.errors import Failure, Refusal
from train.validate import flatten, suggest

OVERRIDE = re.compile(r"^--?(no)?config\.([\w.]+)")
# What a list's parser reads by itself: numbers, and what is quoted.
_LITERAL = re.compile(r"[^A-Za-z*]*|.*['\"(\[].*")
# A file of predictions may be scored by itself, without an experiment.
_NEUTRAL = Path(__file__).parents[2] / "configs/common.py"
_FLAG = re.compile(r"--?[A-Za-z]")
_PARSERS: dict[type, flags.ArgumentParser] = {
  bool: flags.BooleanParser(),
  int: flags.IntegerParser(),
  float: flags.FloatParser(),
  tuple: tuple_parser.TupleParser(),
}
# What a value of a type is, for messages; and alike of absl's names of types.
_TAKES = {
  bool: "True or False",
  int: "one whole number",
  float: "one number",
  str: "one text",
  tuple: "a list with commas, such as 1,2 or a,b or \"('a','b')\"",
}
_TYPES = {"bool": bool, "int": int, "float": float}


def split(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
  """Overrides, each with its value in one word, the rest, and what is no flag.

  "--config.seed 3" is "--config.seed=3"; what stands after "--" is no flag.
  """
  words, tail = list(arguments), []
  if "--" in words:
    place = words.index("--")
    words, tail = words[:place], words[place:]
  overrides, rest = [], []
  while words:
    word = words.pop(0)
    if not OVERRIDE.match(word):
      rest.append(word)
      continue
    if "=" not in word and words and not _FLAG.match(words[0]):
      word = f"{word}={words.pop(0)}"
    overrides.append(word)
  return overrides, rest, tail


def parse(
  argv: Sequence[str],
  config: flags.FlagHolder,
  arguments: list[str],
  check: Callable[[], None],
) -> list[str]:
  """Parses flags; a mistyped config key ends with a suggestion.

  Args:
    config: the flag that names the configuration.
    arguments: filled with where config_flags looks for overrides.
    check: of the flags, before overrides are.

  Raises:
    Refusal: what the command line says cannot be understood.
  """
  try:
    # Those of a --flagfile too: overrides are told from flags by their names.
    argv = [*argv[:1], *flags.FLAGS.read_flags_from_files(argv[1:], False)]
    overrides, rest, tail = split(argv)
    if value_of("predictions", rest) and not value_of("config", rest):
      rest.append(f"--config={_NEUTRAL}")
    # The file alone first, so that overrides can be compared with its keys.
    with config_file.reading(value_of("config", rest)):
      flags.FLAGS(rest)
      check()
    check_overrides(overrides, config.value)
    overrides = [quote_names(word, config.value) for word in overrides]
    arguments[:] = [*rest, *overrides, *tail]
    return flags.FLAGS(list(arguments))
  except Failure:
    raise
  except (flags.Error, ValueError) as error:
    reason = explain(error, flags.FLAGS["config"].value)
    raise Refusal(reason) from error


def value_of(flag: str, arguments: Sequence[str]) -> str:
  """The last value that a flag is given; empty: none."""
  value = ""
  for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
    name, equals, text = word.partition("=")
    if name in (f"-{flag}", f"--{flag}"):
      value = text if equals else after
  return value


def explain(error: Exception, config: Any) -> str:
  """What absl says of flags, with what to write instead."""
  text = str(error).strip().splitlines()[-1].removeprefix("ERROR:: ")
  if isinstance(error, flags.UnrecognizedFlagError):
    name = error.flagname
    known = [*flags.FLAGS]
    if isinstance(config, Config):
      known += [f"config.{key}" for key in flatten(config)]
    near = suggest(name, known).replace("'", "'--", 1)
    text = f"--{name}: there is no such flag{near}"
  elif match := re.match(r"flag (--(\w+)=.*?): ", text):
    kind = _TYPES.get(flags.FLAGS[match[2]].flag_type())
    if kind:
      text = f"{match[1]}: --{match[2]} takes {_TAKES[kind]}"
  return f"{text} (see --help)"


def check_flags(
  config: Any,
  workdir: str,
  mode: str,
  modes: Sequence[str],
  given: Sequence[str] = (),
) -> None:
  """The flags that every run needs.

  Args:
    given: the flags of modes that are given; a file of --predictions is scored
      without a run.
  """
  check_mode_name(mode, modes)
  check_config(config)
  if "predictions" in given and "step" in given:
    raise Refusal(
      "--step is not used with --predictions: leave one of them out"
    )
  if "predictions" in given and not workdir:
    return
  if not workdir:
    raise Refusal("--workdir is missing: pass a folder, --workdir=runs/name")
  check_path("workdir", workdir)


def check_mode_name(mode: str, modes: Sequence[str]) -> None:
  """The mode is one that there is."""
  if mode not in modes:
    raise Refusal(f"--mode={mode}: choose one of {', '.join(modes)}")


def check_config(config: Any) -> None:
  """The file that --config names has given a configuration."""
  if config is None and not flags.FLAGS["config"].present:
    raise Refusal(
      "--config is missing: pass a file, --config=configs/quickstart.py"
    )
  try:
    # In place of a file that cannot be read absl has what raises when used.
    flat = flatten(config) if hasattr(config, "items") else None
  except OSError as error:
    raise Refusal(f"--config: {error.__cause__ or error}") from error
  if flat is None or not isinstance(config, Config):
    raise Refusal(
      f"--config: get_config() returns a {type(config).__name__}, not a "
      "configuration: begin with that of configs/common.py, and return it"
    )


def check_mode(
  mode: str, given: Sequence[str], modes: Mapping[str, Sequence[str]]
) -> None:
  """Every flag that was given is one that the mode uses.

  Args:
    modes: those that use a flag, by flag.
  """
  for flag in given:
    if mode not in modes[flag]:
      raise Refusal(
        f"--{flag} is not used by --mode={mode}: leave it out, or add "
        f"--mode={modes[flag][0]}"
      )


def check_arguments(arguments: Sequence[str]) -> None:
  """Words that are no flag are a typing error."""
  if arguments:
    raise Refusal(
      f"{arguments[0]!r} is not a flag: write --config.section.key=value"
    )


def check_overrides(arguments: Sequence[str], config: Config) -> None:
  """Every --config.section.key names a key that exists, and a value of it."""
  known = flatten(config)
  for argument in arguments:
    match = OVERRIDE.match(argument)
    key = match[2] if match else ""
    if isinstance(config.get(key), Config):
      raise Refusal(
        f"{argument}: {key} is a section: write --config.{key}.key=value"
      )
    if key not in known:
      near = suggest(key, list(known))
      raise Refusal(f"{argument}: there is no key {key!r}{near}")
    _, equals, value = quote_names(argument, config).partition("=")
    kind = type(known[key])
    if match and match[1]:
      fits = kind is bool and not equals
    elif not equals:
      fits = kind is bool
    else:
      fits = _fits(value, kind)
    if not fits:
      raise Refusal(
        f"{argument}: {key} takes {_TAKES[kind]}; the config has {known[key]!r}"
      )


def quote_names(argument: str, config: Config) -> str:
  """An override of a list by bare texts, "a,b", as its parser reads them.

  Groups, which have commas, are parted by ";". That parser would make a single
  text of all, or refuse it.
  """
  name, _, value = argument.partition("=")
  match = OVERRIDE.match(name)
  of_list = match and isinstance(flatten(config).get(match[2]), tuple)
  if not of_list or _LITERAL.fullmatch(value):
    return argument
  between = ";" if name.endswith("optim.groups") else ","
  return f"{name}={tuple(word.strip() for word in value.split(between))}"


def _fits(value: str, kind: type) -> bool:
  """Whether the text of a flag is a value of this type."""
  if kind is str:
    try:
      return not isinstance(ast.literal_eval(value), tuple | list)
    except (ValueError, SyntaxError):
      return True
  try:
    _PARSERS[kind].parse(value)
  except ValueError:
    return False
  return True
