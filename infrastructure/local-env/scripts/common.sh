# What the scripts of local-env share; they source it.
# shellcheck shell=bash
set -euo pipefail
env_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
root="$(cd "$env_root/../.." && pwd)"
# shellcheck source=../../config/load-versions.sh
source "$root/infrastructure/config/load-versions.sh"
CLUSTER=${CLUSTER:-tallyhouse}
# Programs that `make setup` fetches, before those of the machine.
export PATH="$env_root/.bin:$PATH"

fail() {
  echo "${0##*/}: $*" >&2
  exit 1
}

need() { command -v "$1" >/dev/null || fail "$1: not found; run 'make setup' in infrastructure/local-env"; }

# A release of the platform, by its own chart, in the environment local.
release() { (cd "$root" && PYTHONPATH=include:. .venv/bin/python -m scripts.charts install "${ENVIRONMENT:-local}" "$@"); }
