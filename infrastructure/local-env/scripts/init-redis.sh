#!/usr/bin/env bash
# Installs a Redis at redis.tallyhouse:6379; its password is in the Secret `redis`.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need kubectl
"$env_root/scripts/init-secrets.sh"
release redis
