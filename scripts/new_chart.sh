# What new-service-chart.sh and new-job-chart.sh share; they source it.
# shellcheck shell=bash
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
charts="$root/infrastructure/helm/charts"
into=$charts
namespace=tallyhouse

fail() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# Sets `chart` to the folder of the new chart.
begin() {
  local name=$1
  [[ $name =~ ^[a-z]([a-z0-9-]{0,40}[a-z0-9])?$ ]] ||
    fail "$name: not a name; 1 to 42 small letters, digits and hyphens, beginning with a letter"
  into=$(realpath -m "$into")
  chart=$into/$name
  [ ! -e "$chart" ] || fail "$chart: is there already; choose another name, or remove it"
  mkdir -p "$chart/templates"
}

# The chart itself: its name, description and library.
chart_yaml() {
  local name=$1 library=$2
  local where
  where=$(realpath --relative-to="$chart" "$root/infrastructure/helm/library-charts/$library")
  cat >"$chart/Chart.yaml" <<YAML
apiVersion: v2
name: $name
description: The $library $name
type: application
version: 0.1.0
# The image's tag, unless the values name one.
appVersion: "0.1.0"
kubeVersion: ">=1.30.0-0"
dependencies:
  - name: $library
    version: 0.1.0
    repository: file://$where
YAML
  echo "{{ include \"$library.manifest\" (list \$ \"$library\") }}" >"$chart/templates/manifest.yaml"
}

# Adds the release to what `make k8s-deploy` installs, unless the chart is elsewhere; says what comes next.
finish() {
  local name=$1
  if [ "$into" = "$charts" ]; then
    echo "  - {<<: *chart, name: $name, namespace: $namespace, needs: [default/platform]}" \
      >>"$root/infrastructure/helm/helmfile.yaml.gotmpl"
  fi
  echo "$chart: made; see values.yaml, then: python -m scripts.charts template local $name"
}
