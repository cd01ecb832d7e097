{{/* What every pod has. All of it passes the Pod Security Standard "restricted". */}}

{{/* Takes (dict "root" $ "user" 65532): the user that the image runs as, whose group owns what is mounted. */}}
{{- define "grpc-service.podSecurity" -}}
automountServiceAccountToken: false  # nothing here talks to the Kubernetes API
enableServiceLinks: false  # variables such as REDIS_PORT, made for each Service, must not pass for settings
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
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

{{/* The user that our images are built for (their Dockerfiles say so). Not a value: another one could not read them. */}}
{{- define "grpc-service.user" -}}65532{{- end }}

{{/* On which nodes a pod goes: what the operator says, and away from its like. Takes (dict "root" $ "selector" TEXT). */}}
{{- define "grpc-service.placement" -}}
{{- $values := .root.Values -}}
{{- $selector := .selector -}}
topologySpreadConstraints:
{{- range $key, $when := dict "kubernetes.io/hostname" $values.spread.nodes "topology.kubernetes.io/zone" $values.spread.zones }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $when }}
    labelSelector:
      matchLabels: {{- $selector | nindent 8 }}
    matchLabelKeys: [pod-template-hash]  # else the old pods of a rolling update count
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* New pods come before old ones go, and count when callers have had the time to learn of them: a roll-out never takes capacity away. */}}
{{- define "grpc-service.strategy" -}}
minReadySeconds: {{ .Values.minReadySeconds }}
strategy:
  type: RollingUpdate
  rollingUpdate: {maxUnavailable: 0, maxSurge: 25%}
{{- end }}

{{/*
The wait between the end of a pod being decided and SIGTERM. Takes .Values.drain. The kubelet sleeps itself, by default since Kubernetes 1.30; before
1.33 it takes no sleep of 0.
*/}}
{{- define "grpc-service.preStop" -}}
{{- with .preStopSeconds -}}
lifecycle:
  preStop: {sleep: {seconds: {{ . }}}}
{{- end }}
{{- end }}
