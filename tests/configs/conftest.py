"""A machine of one device: a program for eight takes longer to compile."""

import jax
import pytest

from train import mesh, start


@pytest.fixture
def one_device(monkeypatch):
  make_mesh = mesh.make_mesh
  monkeypatch.setattr(
    start, "make_mesh", lambda sizes: make_mesh(sizes, jax.devices()[:1])
  )
