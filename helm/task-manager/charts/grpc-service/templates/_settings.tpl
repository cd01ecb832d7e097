{{/* The settings that are no secrets, one `NAME: "value"` a line. `default` is before what the operator says. */}}
{{- define "grpc-service.settings" -}}
{{- $global := .Values.global -}}
{{- $given := dict
      "ENVIRONMENT" "production"
      "TOKEN_ISSUER" $global.token.issuer
      "TOKEN_AUDIENCE" $global.token.audience
      "OTEL_SERVICE_NAME" .Chart.Name
      "OTEL_EXPORTER_OTLP_ENDPOINT" $global.tracing.endpoint
      "DRAIN_DELAY_SECONDS" .Values.drain.delaySeconds
      "SHUTDOWN_GRACE_SECONDS" .Values.drain.graceSeconds -}}
{{- include "grpc-service.asText" (merge (deepCopy .Values.settings) $given) -}}
{{- end }}

{{/* A mapping as text, sorted by name. What has no value is left out; numbers keep their digits (a large one would become 1e+06). */}}
{{- define "grpc-service.asText" -}}
{{- range $name, $value := . }}
{{- if kindIs "float64" $value }}
{{- $value = eq (floor $value) $value | ternary (int64 $value) $value }}
{{- end }}
{{- if ne (toString $value) "" }}
{{ $name }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "grpc-service.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "grpc-service.name" . }}
  labels: {{- include "grpc-service.labels" . | nindent 4 }}
data: {{- include "grpc-service.settings" . | indent 2 }}
{{- end }}
