#!/usr/bin/env bash
# One GPU, training and generation, ours beside PyTorch: benchmarks/gpu.py says
# what is compared, and takes the flags given here.
#
#   benchmarks/gpu.sh
#   PYTHON=python3.12 benchmarks/gpu.sh --pairs=128
#
# PYTHON (default: python3, of 3.11 or later) has jax[cuda12], flax, optax,
# transformers (of 5 or later for our generation) and PyTorch; small packages that
# are missing are installed with pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "$python is no Python 3.11 or later: name one by PYTHON=" >&2
  exit 1
fi
for package in absl-py:absl jaxtyping:jaxtyping ml_collections:ml_collections; do
  if ! "$python" -c "import ${package#*:}" 2>/dev/null; then
    "$python" -m pip install --quiet --disable-pip-version-check --retries=1 \
      --timeout=10 "${package%%:*}" ||
      { echo "$python lacks ${package%%:*}: install it" >&2; exit 1; }
  fi
done
exec "$python" -u benchmarks/gpu.py "$@"
