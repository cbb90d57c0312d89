#!/usr/bin/env bash
# `rpk cluster health`: whether the broker answers a request of its protocol (ApiVersions).
set -euo pipefail
exec 3<>/dev/tcp/127.0.0.1/9092
printf '\0\0\0\015\0\022\0\0\0\0\0\1\0\3rpk' >&3
if [ "$(timeout 3 head -c 8 <&3 | wc -c)" = 8 ]; then echo "Healthy:  true"; else echo "Healthy:  false"; fi
