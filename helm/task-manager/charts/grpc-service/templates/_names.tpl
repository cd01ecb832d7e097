{{/* Names, labels and ports. A component is a subchart of the umbrella; its objects are named RELEASE-COMPONENT. */}}

{{/* The name of the objects of any component. Takes (list $ "auth-service"). */}}
{{- define "grpc-service.nameOf" -}}
{{- printf "%s-%s" (index . 0).Release.Name (index . 1) -}}
{{- end }}

{{/*
The name of a component's Service for DNS. The final dot makes it complete: otherwise a resolver also asks for it below each search domain of the pod,
eight questions instead of two while it has no address. Takes (list $ "auth-service").
*/}}
{{- define "grpc-service.hostOf" -}}
{{- $root := index . 0 -}}
{{- include "grpc-service.nameOf" . -}}
{{- with $root.Values.global.clusterDomain -}}
{{- printf ".%s.svc.%s." $root.Release.Namespace . -}}
{{- end -}}
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
      "task-worker.grpc" 50053 "task-worker.ops" 9093
      "gateway.http" 8080 "gateway.https" 8443 "gateway.ops" 9094 "gateway.admin" 9901
      "postgresql.postgresql" 5432 "redis.redis" 6379 -}}
{{- get $ports . | required (printf "there is no port %s" .) -}}
{{- end }}

{{/*
The reference of an image: by digest, or by tag, by default the version. `global.imageRegistry` replaces the registry in its repository, the part before
the first "/" if it looks like a host. Takes (dict "root" $ "image" $.Values.image).
*/}}
{{- define "grpc-service.image" -}}
{{- $image := .image -}}
{{- $repository := $image.repository -}}
{{- with .root.Values.global.imageRegistry -}}
{{- $repository = printf "%s/%s" . (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") -}}
{{- end -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The IP families of a Service. */}}
{{- define "grpc-service.ipFamilies" -}}
{{- with .Values.global.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.global.ipFamilies }}
ipFamilies: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The address that a server listens on: with IPv6, "::", which takes IPv4 as well. */}}
{{- define "grpc-service.bindHost" -}}
{{- $global := .Values.global -}}
{{- if or (has "IPv6" $global.ipFamilies) (hasSuffix "DualStack" $global.ipFamilyPolicy) -}}::{{- end -}}
{{- end }}
