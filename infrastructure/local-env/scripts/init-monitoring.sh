#!/usr/bin/env bash
# Installs Prometheus with the platform's jobs and alert rules.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need kubectl
"$env_root/scripts/init-secrets.sh"
release monitoring
