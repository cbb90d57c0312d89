{{/*
Every template below takes one context, which "common.context" describes:
  root    the chart that uses the library
  key     under which of its values the component's are: the dependency's name or alias
  Values  those values
  plain   the key that adds nothing to the name ("service" or "job")
  Chart, Release, global, namespace
*/}}

{{/* Name of the application, the same for all components of a chart. */}}
{{- define "common.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* Name of the component's objects: the release's, the chart's unless that contains it, the key unless plain. */}}
{{- define "common.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- tpl .Values.fullnameOverride .root | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "common.name" . -}}
{{- $base := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- $full := eq .key .plain | ternary $base (printf "%s-%s" $base (kebabcase .key)) -}}
{{- $full | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* What tells the component's pods from others; never changes. */}}
{{- define "common.selectorLabels" -}}
app.kubernetes.io/name: {{ include "common.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ kebabcase .key }}
{{- end }}

{{- define "common.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "common.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | default .Chart.Version | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: tallyhouse
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata of an object. Takes the context; `_name` and `_annotations` in it are of this object alone. */}}
{{- define "common.metadata" -}}
name: {{ ._name | default (include "common.fullname" .) }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "common.labels" . | nindent 2 }}
{{- with merge (dict) (._annotations | default dict) .Values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The name of an image. Takes the context and in it `image`, the main container's or another one's. */}}
{{- define "common.image" -}}
{{- $image := .image -}}
{{- $registry := $image.registry | default .global.imageRegistry -}}
{{- $tag := $image.tag | default .global.imageTag | default .Chart.AppVersion | toString -}}
{{- $repository := required (printf "%s.image.repository: not set; name the image" .key) $image.repository -}}
{{- with $registry }}{{ . }}/{{ end }}{{ $repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ required (printf "%s.image.tag: not set, and the chart has no appVersion" .key) $tag }}{{ end }}
{{- end }}

{{- define "common.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "common.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "common.containerName" -}}
{{- .Values.containerName | default (include "common.name" .) -}}
{{- end }}

{{- define "common.secretName" -}}
{{- tpl .Values.secret.name .root | default (include "common.fullname" .) -}}
{{- end }}

{{- define "common.hasSecret" -}}
{{- if or .Values.secret.data .Values.secret.generate .Values.externalSecret.enabled }}true{{ end -}}
{{- end }}

{{/* The key of a ConfigMap that holds the file of a path. */}}
{{- define "common.fileKey" -}}
{{- . | trimPrefix "/" | replace "/" "_" -}}
{{- end }}

{{/* The name of the volume of a path that may be written. */}}
{{- define "common.volumeName" -}}
{{- printf "writable-%s" (. | trimPrefix "/" | replace "/" "-" | replace "." "-" | replace "_" "-" | lower) | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* Texts of `files`, as a ConfigMap's data; those of a Secret are not among them. */}}
{{- define "common.fileTexts" -}}
{{- $root := .root -}}
{{- range $path, $file := .Values.files }}
{{- if kindIs "string" $file }}
{{ include "common.fileKey" $path | quote }}: {{ tpl $file $root | quote }}
{{- else if $file.file }}
{{- $text := required (printf "files: the chart has no file %s" $file.file) ($root.Files.Get $file.file) }}
{{ include "common.fileKey" $path | quote }}: {{ $text | quote }}
{{- end }}
{{- end }}
{{- end }}
