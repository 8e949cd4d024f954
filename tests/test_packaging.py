"""What pip installs, with which versions, and that the README speaks truth."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_packages

from configs import common

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(
  str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")
)]  # fmt: skip


def pins(python: str) -> dict[str, str]:
  """Versions that constraints.txt sets for a Python version."""
  lines = (ROOT / "constraints.txt").read_text().splitlines()
  found = {}
  for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
    requirement = Requirement(line)
    marker = requirement.marker
    if marker and not marker.evaluate({"python_version": python}):
      continue
    [specifier] = requirement.specifier
    assert specifier.operator == "==", line
    name = canonicalize_name(requirement.name)
    assert name not in found, line
    found[name] = specifier.version
  return found


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_direct_dependency_has_one_exact_version(python):
  versions = pins(python)
  direct = PROJECT["project"]["dependencies"] + EXTRAS["train"] + EXTRAS["test"]
  for requirement in map(Requirement, direct):
    version = versions[canonicalize_name(requirement.name)]
    assert version in requirement.specifier, requirement


def test_encdec_alone_is_installed():
  include = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
  found = find_packages(str(ROOT), include=include)
  assert {"encdec", "encdec.archs", "encdec.hub", "encdec.layers"} <= set(found)
  assert all(name.split(".")[0] == "encdec" for name in found)
  folders = {path.parent for path in (ROOT / "encdec").rglob("*.py")}
  # A folder without __init__.py would be left behind.
  assert {str(f.relative_to(ROOT)).replace("/", ".") for f in folders} == set(
    found
  )


def test_the_product_needs_no_pytorch():
  needed = PROJECT["project"]["dependencies"] + EXTRAS["train"]
  assert not any(Requirement(line).name == "torch" for line in needed)
  assert "torch==2.13.0" in EXTRAS["test"]


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_keys_and_files_that_exist(page):
  text = (ROOT / page).read_text()
  config = common.get_config().to_dict()
  for key in re.findall(r"--config\.([a-z_]+(?:\.[a-z_0-9]+)?)=", text):
    if key != "section.key":
      section, _, name = key.partition(".")
      assert name in config[section] if name else section in config, key
  named = r"\b(?:configs|docs|encdec|train|data|launch|tests)/[\w./]*[\w/]"
  for path in re.findall(named, text):
    assert (ROOT / path).exists(), path
