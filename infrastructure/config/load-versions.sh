#!/usr/bin/env bash
# Reads versions.yaml into variables: `tools: {helm: …}` becomes TOOLS_HELM. To be sourced by scripts:
#   source infrastructure/config/load-versions.sh
# Run by itself, it prints them. Takes yq where there is one (either of the two programs of that name), and
# otherwise awk, which is enough for two levels of plain values.
VERSIONS_FILE="${VERSIONS_FILE:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/versions.yaml}"

versions_lines() {
  if [ -z "${VERSIONS_WITHOUT_YQ:-}" ] && command -v yq >/dev/null; then
    yq -r 'to_entries | .[] | .key as $g | .value | to_entries | .[] | $g + "_" + .key + "=" + .value' "$VERSIONS_FILE"
  else
    awk '
      /^[[:space:]]*(#|$)/ { next }
      /^[a-z_]+:[[:space:]]*$/ { group = substr($1, 1, length($1) - 1); next }
      /^  [a-z_]+: / { name = $1; sub(":$", "", name); sub("^  [a-z_]+: *", ""); sub("[[:space:]]+#.*$", ""); print group "_" name "=" $0; next }
      { print FILENAME ": line " NR ": neither a group nor a value of one" > "/dev/stderr"; exit 1 }
    ' "$VERSIONS_FILE"
  fi
}

if ! versions_found=$(versions_lines); then
  echo "load-versions.sh: $VERSIONS_FILE could not be read" >&2
  # shellcheck disable=SC2317 # it is run as well as sourced
  return 1 2>/dev/null || exit 1
fi
while IFS== read -r versions_name versions_value; do
  [ -n "$versions_name" ] || continue
  export "${versions_name^^}=$versions_value"
  if [ "${BASH_SOURCE[0]}" = "$0" ]; then echo "${versions_name^^}=$versions_value"; fi
done <<<"$versions_found"
unset versions_found versions_name versions_value
