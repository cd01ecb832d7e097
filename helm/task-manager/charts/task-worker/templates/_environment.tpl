{{/* The environment variables of this component only: none. It calls no service and serves no calls, so it has no keys. */}}
{{- define "task-worker.environment" -}}
{{- end }}
