#!/usr/bin/env bash
# Installs PostgreSQL by itself: TechMarket's stores with the warehouse, and the pancake shop's database with the shop.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need kubectl
"$env_root/scripts/init-secrets.sh"
release techmarket pancake
