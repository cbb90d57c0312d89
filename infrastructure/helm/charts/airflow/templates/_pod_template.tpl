{{/* The pod that the KubernetesExecutor starts for a task: values of `worker`, by the library's own pod. */}}
{{- define "airflow.podTemplate" -}}
{{- $context := dict "root" $ "key" "worker" "plain" "service" "Values" .Values.worker "Chart" .Chart "Release" .Release "global" (.Values.global | default dict) "podMore" "restartPolicy: Never" -}}
apiVersion: v1
kind: Pod
{{ include "common.pod" $context }}
{{- end }}
