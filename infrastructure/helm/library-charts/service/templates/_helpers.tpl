{{/*
Everything of a service, in one line of a chart's template:

  {{ include "service.manifest" (list $ "service") }}

"service" is the dependency's name in Chart.yaml, or its alias where a chart has several; the component's values
are under that key.
*/}}
{{- define "service.manifest" -}}
{{- include "common.manifest" (dict "root" (index . 0) "key" (index . 1) "plain" "service" "parts" (list
  "service.serviceaccount" "service.role" "service.rolebinding"
  "service.configmap" "service.filesconfigmap" "service.secret" "service.externalsecret"
  "service.persistentvolumeclaims" "service.deployment" "service.statefulset" "service.service" "service.headless"
  "service.ingress" "service.hpa" "service.pdb" "service.networkpolicy" "service.servicemonitor"
  "service.prometheusrule")) -}}
{{- end }}

{{- define "service.serviceName" -}}
{{- tpl .Values.service.name .root | default (include "common.fullname" .) -}}
{{- end }}

{{/* What the container has beside what every container has: ports, probes, a grace when it ends. */}}
{{- define "service.container" -}}
{{- with .Values.ports }}
ports:
  {{- range $name, $number := . }}
  - name: {{ $name }}
    containerPort: {{ $number }}
    protocol: TCP
  {{- end }}
{{- end }}
{{- range $kind := list "startup" "liveness" "readiness" }}
{{- with index $.Values.probes $kind }}
{{- if or .custom .path }}
{{ $kind }}Probe:
  {{- if .custom }}
  {{- toYaml .custom | nindent 2 }}
  {{- else }}
  httpGet:
    path: {{ .path }}
    port: {{ .port }}
  {{- end }}
  {{- with .initialDelaySeconds }}
  initialDelaySeconds: {{ . }}
  {{- end }}
  periodSeconds: {{ .periodSeconds }}
  timeoutSeconds: {{ .timeoutSeconds }}
  failureThreshold: {{ .failureThreshold }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.drainSeconds .Values.ports }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.drainSeconds }}
{{- end }}
{{- end }}

{{/* What the pod has besides: its distance from others of its kind. */}}
{{- define "service.podMore" -}}
{{- if and .Values.topologySpread.enabled .Values.topologySpread.keys }}
topologySpreadConstraints:
  {{- range .Values.topologySpread.keys }}
  - topologyKey: {{ . }}
    maxSkew: {{ $.Values.topologySpread.maxSkew }}
    whenUnsatisfiable: {{ $.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "common.selectorLabels" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "service.pod" -}}
{{- include "common.pod" (merge (dict
  "containerMore" (include "service.container" . | trim)
  "podMore" (include "service.podMore" . | trim)
  "claimTemplates" (eq .Values.kind "StatefulSet")) .) -}}
{{- end }}

{{/* Whether more than one pod may run: then an eviction has to leave some. */}}
{{- define "service.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}true{{ end -}}
{{- end }}
