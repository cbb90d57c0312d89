#!/usr/bin/env bash
# Makes .venv from uv.lock with Python 3.12, from whatever a new machine has.
#
# uv:     the one on PATH, else a pinned one in a virtual environment of its own in the cache.
# Python: what uv finds, else pyenv's (whose shims do not run for a version that is not selected),
#         else uv's own build, else the system's package manager.
# Safe to repeat; an environment that is in step takes under a second.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
UV_VERSION="$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' "$root/scripts/uv.txt")"
cache="${TALLYHOUSE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/tallyhouse}"
export UV_PYTHON_DOWNLOADS=manual

fail() {
  echo "setup: $*" >&2
  exit 1
}

apt_install() {
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || return 1
  (apt-get install -y -qq "$@" || { apt-get update -qq && apt-get install -y -qq "$@"; }) >/dev/null 2>&1 </dev/null
}

find_uv() {
  uv="$(command -v uv || true)"
  if [ -n "$uv" ] && "$uv" --version >/dev/null 2>&1; then return; fi
  uv="$cache/tools/uv-$UV_VERSION/bin/uv"
  if [ -x "$uv" ]; then return; fi
  command -v python3 >/dev/null || apt_install python3 python3-venv || fail "python3: not found; install Python 3 and run this again"
  mkdir -p "$cache/tools"
  local making
  making="$(mktemp -d "$cache/tools/.uv-XXXXXX")"
  # Made where it will stay named: a virtual environment does not survive being moved, but uv's
  # binary does, so only that is taken out of it.
  python3 -m venv "$making/venv" >/dev/null 2>&1 ||
    { apt_install python3-venv && python3 -m venv --clear "$making/venv" >/dev/null; } ||
    fail "uv: python3 cannot make a virtual environment; install uv or python3-venv and run this again"
  "$making/venv/bin/pip" install --quiet --require-hashes -r "$root/scripts/uv.txt" </dev/null ||
    fail "uv: could not be installed; install uv $UV_VERSION (pip install uv) and run this again"
  mkdir -p "$making/bin"
  cp -L "$making/venv/bin/uv" "$making/bin/uv"
  rm -rf "$making/venv"
  mv -T "$making" "$cache/tools/uv-$UV_VERSION" 2>/dev/null || rm -rf "$making"
}

find_python() {
  local candidate shim
  python="$("$uv" python find --system 3.12 2>/dev/null || true)"
  if [ -n "$python" ] && "$python" -c 'import ssl, sqlite3' 2>/dev/null; then return; fi
  shim="$(command -v python3.12 || true)"
  for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python "${shim%/shims/*}"/versions/3.12*/bin/python; do
    python="$candidate"
    if "$python" -c 'import ssl, sqlite3' 2>/dev/null; then return; fi
  done
  if "$uv" python install --quiet 3.12 </dev/null 2>/dev/null; then
    python="$("$uv" python find 3.12)"
    return
  fi
  if apt_install python3.12 python3.12-venv; then
    python="$(command -v python3.12)"
    return
  fi
  fail "Python 3.12: not found; install it (pyenv install 3.12, or your system's python3.12) and run this again"
}

find_uv
find_python
cd "$root"
# Accounts of servers that root starts may not keep what they compile, and would compile at each start.
if [ "$(id -u)" = 0 ]; then export UV_COMPILE_BYTECODE=1; fi
"$uv" sync --frozen --quiet --python "$python" </dev/null ||
  fail "uv sync: failed; see the lines above (a registry that cannot be reached, or a full disk)"
touch .venv/.ready
