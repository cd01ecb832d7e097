{{/* The environment variables of this component only. */}}
{{- define "auth-service.environment" -}}
{{- $keys := include "grpc-service.keysSecret" . -}}
{{ include "grpc-service.fromSecret" (dict "name" "SERVICE_TOKEN" "secret" $keys "key" "service-token") }}
{{ include "grpc-service.fromSecret" (dict "name" "KEY_ENCRYPTION_KEY" "secret" $keys "key" "key-encryption-key") }}
{{- end }}
