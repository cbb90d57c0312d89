{{/* observability/prometheus.yml with the addresses of a cluster. */}}
{{- define "monitoring.config" -}}
{{- $config := .Files.Get "files/prometheus.yml" | fromYaml -}}
{{- range $job := $config.scrape_configs -}}
{{- $target := required (printf "monitoring.targets: job %s of observability/prometheus.yml has no address" $job.job_name) (get $.Values.targets $job.job_name) -}}
{{- $_ := set $job "static_configs" (list (dict "targets" (list $target))) -}}
{{- if $job.basic_auth -}}
{{- $_ := set $job.basic_auth "password_file" "private/login/password" -}}
{{- end -}}
{{- end -}}
{{ toYaml $config }}
{{- end }}
