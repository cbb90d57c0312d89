#!/usr/bin/env bash
# Fetches kind, kubectl and Helm at the versions of infrastructure/config/versions.yaml into .bin, each by `go install`.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v go >/dev/null || fail "go: not found; install Go 1.24 or newer"
mkdir -p "$env_root/.bin"

# <program> <version> <module>: unless it is there at this version.
fetch() {
  local stamp="$env_root/.bin/.$1-$2"
  [ ! -e "$stamp" ] || return 0
  echo "$1 $2"
  GOBIN="$env_root/.bin" go install "$3@$2"
  rm -f "$env_root/.bin/.$1-"*
  touch "$stamp"
}

fetch kind "$TOOLS_KIND" sigs.k8s.io/kind
fetch helm "$TOOLS_HELM" helm.sh/helm/v3/cmd/helm
# Its module cannot be installed by go: it replaces others. The released program, checked against its sum.
stamp="$env_root/.bin/.kubectl-$TOOLS_KUBECTL"
if [ ! -e "$stamp" ]; then
  echo "kubectl $TOOLS_KUBECTL"
  system=$(uname -s | tr '[:upper:]' '[:lower:]') machine=$(uname -m)
  case $machine in x86_64) machine=amd64 ;; aarch64) machine=arm64 ;; esac
  from="https://dl.k8s.io/release/$TOOLS_KUBECTL/bin/$system/$machine/kubectl"
  curl -fsSL --retry 3 -o "$env_root/.bin/kubectl.part" "$from"
  echo "$(curl -fsSL --retry 3 "$from.sha256")  $env_root/.bin/kubectl.part" | sha256sum --check --quiet
  chmod +x "$env_root/.bin/kubectl.part"
  mv "$env_root/.bin/kubectl.part" "$env_root/.bin/kubectl"
  rm -f "$env_root/.bin/.kubectl-"*
  touch "$stamp"
fi
