{{/* The environment variables of this component only. */}}
{{- define "task-service.environment" -}}
{{- $keys := include "grpc-service.keysSecret" . -}}
{{- $auth := include "grpc-service.hostOf" (list . "auth-service") -}}
{{ include "grpc-service.fromSecret" (dict "name" "SERVICE_TOKEN" "secret" $keys "key" "service-token") }}
{{ include "grpc-service.fromSecret" (dict "name" "PAGE_TOKEN_KEY" "secret" $keys "key" "page-token-key") }}
{{ include "grpc-service.fromSecret" (dict "name" "KEY_ENCRYPTION_KEY" "secret" $keys "key" "key-encryption-key") }}
- name: JWKS_URL
  value: http://{{ $auth }}:{{ include "grpc-service.port" "auth-service.ops" }}/.well-known/jwks.json
- name: AUTH_GRPC_ENDPOINT  # every address of this name is a replica; the client uses round robin
  value: dns:///{{ $auth }}:{{ include "grpc-service.port" "auth-service.grpc" }}
{{- end }}

{{/* The canary's image: its own tag or digest; all other fields are those of `image`. */}}
{{- define "task-service.canaryImage" -}}
{{- merge (deepCopy .Values.canary.image) (omit .Values.image "tag" "digest") | toYaml -}}
{{- end }}
