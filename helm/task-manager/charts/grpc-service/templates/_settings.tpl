{{/* The settings of a gRPC service that are no secrets. */}}
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
{{- include "grpc-service.asText" (list $given .Values.settings) -}}
{{- end }}

{{/*
One `NAME: "value"` a line, sorted. Takes (list GIVEN SAID): what the operator says comes before what the chart gives. Not by `merge`, which takes 0 and
false for nothing. What is empty is left out, and numbers keep their digits: a large one would become 1e+06.
*/}}
{{- define "grpc-service.asText" -}}
{{- $all := deepCopy (first .) -}}
{{- range $name, $value := last . }}
{{- $_ := set $all $name $value }}
{{- end }}
{{- range $name, $value := $all }}
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
