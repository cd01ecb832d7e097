{{/* The settings of a gRPC service, without secrets. */}}
{{- define "grpc-service.settings" -}}
{{- $global := .Values.global -}}
{{- $given := dict
      "ENVIRONMENT" "production"
      "DATABASE_POOLER" $global.database.pooler
      "TOKEN_ISSUER" $global.token.issuer
      "TOKEN_AUDIENCE" $global.token.audience
      "BIND_HOST" (include "grpc-service.bindHost" .)
      "OTEL_SERVICE_NAME" .Chart.Name
      "OTEL_EXPORTER_OTLP_ENDPOINT" $global.tracing.endpoint
      "DRAIN_DELAY_SECONDS" .Values.drain.delaySeconds
      "SHUTDOWN_GRACE_SECONDS" .Values.drain.graceSeconds -}}
{{- include "grpc-service.asText" (list $given .Values.settings) -}}
{{- end }}

{{/*
Renders one line `NAME: "value"` per setting, sorted by name. Takes (list GIVEN SAID): a value in SAID, from the operator, overrides the one in GIVEN,
from the chart. It does not use `merge`, because `merge` treats 0 and false as empty. Empty values are left out. A whole number keeps its digits;
otherwise a large one would become 1e+06.
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
