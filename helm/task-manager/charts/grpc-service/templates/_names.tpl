{{/* Names, labels and ports. A component is a subchart of the umbrella; its objects are named RELEASE-COMPONENT. */}}

{{/* The name of the objects of any component. Takes (list $ "auth-service"). */}}
{{- define "grpc-service.nameOf" -}}
{{- printf "%s-%s" (index . 0).Release.Name (index . 1) -}}
{{- end }}

{{/* The name of this component's objects. */}}
{{- define "grpc-service.name" -}}
{{- include "grpc-service.nameOf" (list . .Chart.Name) -}}
{{- end }}

{{/* The labels that select all pods of a component. Takes (list $ "auth-service"). */}}
{{- define "grpc-service.selectorOf" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- define "grpc-service.selector" -}}
{{- include "grpc-service.selectorOf" (list . .Chart.Name) -}}
{{- end }}

{{/* The labels of a component's objects. Takes (list $ "auth-service"). */}}
{{- define "grpc-service.labelsOf" -}}
{{- $root := index . 0 -}}
{{ include "grpc-service.selectorOf" . }}
app.kubernetes.io/part-of: task-manager
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{- define "grpc-service.labels" -}}
{{- include "grpc-service.labelsOf" (list . .Chart.Name) -}}
{{- end }}

{{/* The labels of this component's pods. None of them contains the chart's version, because a new version would then restart all pods. */}}
{{- define "grpc-service.podLabels" -}}
{{ include "grpc-service.selector" . }}
app.kubernetes.io/part-of: task-manager
{{- end }}

{{/* The default port of the code. Ports are not values, because nothing else in the pod can use the same port. Takes "auth-service.grpc". */}}
{{- define "grpc-service.port" -}}
{{- $ports := dict
      "auth-service.grpc" 50051 "auth-service.ops" 9091
      "task-service.grpc" 50052 "task-service.ops" 9092
      "gateway.http" 8080 "gateway.https" 8443 "gateway.ops" 9094 "gateway.admin" 9901
      "postgresql.postgresql" 5432 "redis.redis" 6379 -}}
{{- get $ports . | required (printf "there is no port %s" .) -}}
{{- end }}

{{- define "grpc-service.image" -}}
{{- $image := .image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .version }}
{{- end }}
{{- end }}
