{{/* The gateway's settings. They contain no secret; the only secret of the gateway is the private key of its certificate, a mounted file. */}}
{{- define "gateway.settings" -}}
{{- $auth := include "grpc-service.nameOf" (list . "auth-service") -}}
{{- $task := include "grpc-service.nameOf" (list . "task-service") -}}
{{- $given := dict
      "AUTH_GRPC_ENDPOINTS" (printf "%s:%s" $auth (include "grpc-service.port" "auth-service.grpc"))
      "TASK_GRPC_ENDPOINTS" (printf "%s:%s" $task (include "grpc-service.port" "task-service.grpc"))
      "JWKS_ENDPOINT" (printf "%s:%s" $auth (include "grpc-service.port" "auth-service.ops"))
      "BIND_HOST" (include "grpc-service.bindHost" .)
      "TOKEN_ISSUER" .Values.global.token.issuer
      "TOKEN_AUDIENCE" .Values.global.token.audience
      "OTEL_EXPORTER_OTLP_ENDPOINT" .Values.global.tracing.endpoint
      "DRAIN_DELAY_SECONDS" .Values.drain.delaySeconds
      "SHUTDOWN_GRACE_SECONDS" .Values.drain.graceSeconds
      "TRUSTED_HOPS" (or .Values.ingress.enabled .Values.routes.enabled | ternary 1 0) -}}
{{- if .Values.tls.existingSecret }}
{{- $_ := set $given "TLS_CERT_FILE" "/etc/gateway/tls/tls.crt" }}
{{- $_ := set $given "TLS_KEY_FILE" "/etc/gateway/tls/tls.key" }}
{{- end }}
{{- include "grpc-service.asText" (list $given .Values.settings) -}}
{{- end }}
