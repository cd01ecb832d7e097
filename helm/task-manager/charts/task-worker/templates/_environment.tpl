{{/* The environment variables of this component only: the key of the secrets with which it signs what it sends to webhooks. It calls no service and serves no
calls, so it has no other keys. */}}
{{- define "task-worker.environment" -}}
{{ include "grpc-service.fromSecret" (dict "name" "KEY_ENCRYPTION_KEY" "secret" (include "grpc-service.keysSecret" .) "key" "key-encryption-key") }}
{{- end }}
