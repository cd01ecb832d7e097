{{/* The Service, the autoscaler, the disruption budget and the ServiceAccount of a component. */}}

{{/*
The Service is headless, so that the gateway and gRPC clients resolve every pod and balance calls, not connections. Takes (dict "root" $ "track" "stable").
*/}}
{{- define "grpc-service.service" -}}
{{- $component := .root.Chart.Name -}}
{{- $name := include "grpc-service.name" .root -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ eq .track "stable" | ternary $name (printf "%s-%s" $name .track) }}
  labels: {{- printf "%s\ntrack: %s" (include "grpc-service.labels" .root) .track | nindent 4 }}
spec:
  clusterIP: None
  {{- include "grpc-service.ipFamilies" .root | nindent 2 }}
  selector: {{- printf "%s\ntrack: %s" (include "grpc-service.selector" .root) .track | nindent 4 }}
  ports:
    - name: grpc
      port: {{ include "grpc-service.port" (printf "%s.grpc" $component) }}
      targetPort: grpc
      appProtocol: kubernetes.io/h2c
    - name: ops
      port: {{ include "grpc-service.port" (printf "%s.ops" $component) }}
      targetPort: ops
      appProtocol: http
{{- end }}

{{- define "grpc-service.autoscaler" -}}
{{- $scaling := .Values.autoscaling -}}
{{- if $scaling.enabled -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "grpc-service.name" . }}
  labels: {{- include "grpc-service.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "grpc-service.name" . }}}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    # CPU, because the memory of a Python process says little about its load.
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $scaling.cpuPercent }}}
    {{- with $scaling.metrics }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  behavior: {{- toYaml $scaling.behavior | nindent 4 }}
{{- end }}
{{- end }}

{{/* Allows one disruption at a time by default, over stable and canary pods together. A pod that is not ready serves no calls, so it may always be evicted. */}}
{{- define "grpc-service.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "grpc-service.name" . }}
  labels: {{- include "grpc-service.labels" . | nindent 4 }}
spec:
  {{- with .Values.podDisruptionBudget }}
  {{- if not (kindIs "invalid" .minAvailable) }}
  minAvailable: {{ .minAvailable }}
  {{- else }}
  maxUnavailable: {{ .maxUnavailable }}
  {{- end }}
  {{- end }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "grpc-service.selector" . | nindent 6 }}
{{- end }}

{{/* An identity for policies, meshes and clouds. It has no rights, and pods get no token of the API; the webhook of a cloud mounts its own. */}}
{{- define "grpc-service.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "grpc-service.name" . }}
  labels: {{- include "grpc-service.labels" . | nindent 4 }}
  {{- with (include "grpc-service.podValues" . | fromYaml).serviceAccountAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
