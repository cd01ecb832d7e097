{{/* The parts that all pods share. They comply with the Pod Security Standard "restricted". */}}

{{/* Takes (dict "root" $ "user" 65532), with the user id that the image runs as. The group of the same id owns the mounted volumes. */}}
{{- define "grpc-service.podSecurity" -}}
automountServiceAccountToken: false  # no process calls the Kubernetes API
enableServiceLinks: false  # otherwise Kubernetes sets variables such as REDIS_PORT for each Service, which could be read as settings
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch  # otherwise the kubelet changes the group of every file of a large volume at each start
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "grpc-service.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* The user id in the Dockerfiles of our images. It is not a value, because the images work only with this user. */}}
{{- define "grpc-service.user" -}}65532{{- end }}

{{/* Spreads pods over nodes and zones, if there is room. Takes the labels that select the pods. */}}
{{- define "grpc-service.placement" -}}
{{- $selector := . -}}
topologySpreadConstraints:
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- $selector | nindent 8 }}
    matchLabelKeys: [pod-template-hash]  # otherwise the old pods of a roll-out count as well
{{- end }}
{{- end }}

{{/* New pods start before old ones stop, and count only after minReadySeconds, when callers know them. So a roll-out never reduces capacity. */}}
{{- define "grpc-service.strategy" -}}
minReadySeconds: {{ .Values.minReadySeconds }}
strategy:
  type: RollingUpdate
  rollingUpdate: {maxUnavailable: 0, maxSurge: 25%}
{{- end }}

{{/*
The wait between the deletion of a pod and SIGTERM. Takes .Values.drain. The kubelet itself sleeps; this is on by default since Kubernetes 1.30. Before
1.33, Kubernetes rejects a sleep of 0.
*/}}
{{- define "grpc-service.preStop" -}}
{{- with .preStopSeconds -}}
lifecycle:
  preStop: {sleep: {seconds: {{ . }}}}
{{- end }}
{{- end }}
