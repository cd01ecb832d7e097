{{/* Peers and ports for NetworkPolicies. The default policy denies everything; each component allows its own connections. */}}

{{/* The pods of these components, as peers. Takes (list $ "gateway" "task-service" …). */}}
{{- define "grpc-service.pods" -}}
{{- $root := first . -}}
{{- range rest . }}
- podSelector:
    matchLabels: {{- include "grpc-service.selectorOf" (list $root .) | nindent 6 }}
{{- end }}
{{- end }}

{{/* The ports of a rule. Takes (list "auth-service.grpc" "auth-service.ops" …). */}}
{{- define "grpc-service.ports" -}}
{{- range . }}
- {protocol: TCP, port: {{ include "grpc-service.port" . }}}
{{- end }}
{{- end }}

{{- define "grpc-service.toDns" -}}
- to: {{- toYaml .Values.global.networkPolicy.dns | nindent 4 }}
  ports:
    {{- range .Values.global.networkPolicy.dnsPorts }}
    - {protocol: UDP, port: {{ . }}}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}

{{- define "grpc-service.toDatabase" -}}
{{- $database := .Values.global.database -}}
{{- if $database.host -}}
- ports: [{protocol: TCP, port: {{ $database.port }}}]
  {{- include "grpc-service.toAddresses" $database.cidrs | nindent 2 }}
{{- else -}}
- to: {{- include "grpc-service.pods" (list . "postgresql") | indent 4 }}
  ports: {{- include "grpc-service.ports" (list "postgresql.postgresql") | indent 4 }}
{{- end }}
{{- end }}

{{- define "grpc-service.toRedis" -}}
{{- $redis := .Values.global.redis -}}
{{- if $redis.host -}}
- ports: [{protocol: TCP, port: {{ $redis.port }}}]
  {{- include "grpc-service.toAddresses" $redis.cidrs | nindent 2 }}
{{- else -}}
- to: {{- include "grpc-service.pods" (list . "redis") | indent 4 }}
  ports: {{- include "grpc-service.ports" (list "redis.redis") | indent 4 }}
{{- end }}
{{- end }}

{{/* Allows traces to the port of the collector, at every address. */}}
{{- define "grpc-service.toTracing" -}}
{{- with .Values.global.tracing.endpoint -}}
- ports: [{protocol: TCP, port: {{ (urlParse .).host | regexFind "[0-9]+$" | default (hasPrefix "https:" . | ternary 443 4317) }}}]
{{- end }}
{{- end }}

{{- define "grpc-service.toAddresses" -}}
{{- with . -}}
to:
{{- range . }}
  - ipBlock: {cidr: {{ . }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Allows the migration to connect to DNS and the database. Nothing may connect to the migration. */}}
{{- define "grpc-service.migrationPolicy" -}}
{{- if .Values.global.networkPolicy.enabled -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "grpc-service.nameOf" (list . (include "grpc-service.migrationName" .)) }}
  labels: {{- include "grpc-service.labelsOf" (list . (include "grpc-service.migrationName" .)) | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "grpc-service.selectorOf" (list . (include "grpc-service.migrationName" .)) | nindent 6 }}
  policyTypes: [Egress]
  egress:
    {{- include "grpc-service.toDns" . | nindent 4 }}
    {{- include "grpc-service.toDatabase" . | nindent 4 }}
{{- end }}
{{- end }}
