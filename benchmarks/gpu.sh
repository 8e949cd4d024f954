#!/usr/bin/env bash
# One GPU, training and generation, ours beside PyTorch: benchmarks/gpu.py says
# what is compared, and takes the flags given here.
#
#   benchmarks/gpu.sh
#   PYTHON=python3.12 benchmarks/gpu.sh --pairs=128
#
# PYTHON (default: python3) has jax[cuda12], flax, optax, transformers 5 and
# PyTorch; the small packages that are missing are installed with pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-python3}"
for package in absl-py:absl jaxtyping:jaxtyping ml_collections:ml_collections; do
  if ! "$python" -c "import ${package#*:}" 2>/dev/null; then
    "$python" -m pip install --quiet --disable-pip-version-check \
      "${package%%:*}" || { echo "pip cannot install ${package%%:*}" >&2; exit 1; }
  fi
done
exec "$python" -u benchmarks/gpu.py "$@"
