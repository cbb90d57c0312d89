{{/*
Everything of a job, in one line of a chart's template:

  {{ include "job.manifest" (list $ "job") }}

"job" is the dependency's name in Chart.yaml, or its alias where a chart has several; the component's values are
under that key.
*/}}
{{- define "job.manifest" -}}
{{- include "common.manifest" (dict "root" (index . 0) "key" (index . 1) "plain" "job" "parts" (list
  "job.serviceaccount" "job.role" "job.rolebinding" "job.configmap" "job.filesconfigmap" "job.secret"
  "job.externalsecret" "job.persistentvolumeclaims" "job.job" "job.cronjob" "job.networkpolicy"
  "job.prometheusrule")) -}}
{{- end }}

{{- define "job.persistentvolumeclaims" -}}
{{- include "common.persistentvolumeclaims" . }}
{{- end }}

{{/* The spec of a Job, by itself or in a CronJob. */}}
{{- define "job.spec" -}}
backoffLimit: {{ .Values.backoffLimit }}
activeDeadlineSeconds: {{ .Values.activeDeadlineSeconds }}
{{- if not .Values.hook.events }}
ttlSecondsAfterFinished: {{ .Values.ttlSecondsAfterFinished }}
{{- end }}
completions: {{ .Values.completions }}
parallelism: {{ .Values.parallelism }}
{{- with .Values.podFailurePolicy }}
podFailurePolicy:
  {{- toYaml . | nindent 2 }}
{{- end }}
template:
  {{- include "common.pod" (merge (dict "podMore" (printf "restartPolicy: %s" .Values.restartPolicy)) .) | nindent 2 }}
{{- end }}
