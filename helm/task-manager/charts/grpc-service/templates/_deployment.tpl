{{/*
A gRPC service's Deployment. Takes (dict "root" $ "track" "stable" "image" $.Values.image), or another track and image for a canary.
The component's own environment comes from the template COMPONENT.environment.

How a pod ends, in terminationGracePeriodSeconds, which count from the first step:
1. preStop, drain.preStopSeconds. The endpoints no longer have it, but an answer of the cluster's DNS may: it serves as ever until callers have looked
   again, and so know who came in its place. Were it NOT_SERVING before that, the gateway could be left without any pod: minReadySeconds hold up a
   roll-out, and not who empties a node.
2. SIGTERM, drain.delaySeconds. The process says NOT_SERVING and still takes calls, for balancers that ask for health to look away. That is all the
   warning there is when a process is told to stop by other means, without a hook.
3. drain.graceSeconds. It takes no new calls, ends its streams, and finishes the calls under way (servicekit/process/runtime.py).
4. Pools and clients are closed.
*/}}
{{- define "grpc-service.deployment" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $component := $root.Chart.Name -}}
{{- $canary := ne .track "stable" -}}
{{- $name := include "grpc-service.name" $root -}}
{{- $selector := printf "%s\ntrack: %s" (include "grpc-service.selector" $root) .track -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $canary | ternary (printf "%s-%s" $name .track) $name }}
  labels: {{- printf "%s\ntrack: %s" (include "grpc-service.labels" $root) .track | nindent 4 }}
spec:
  {{- if $canary }}
  replicas: {{ $values.canary.replicas }}
  {{- else if not $values.autoscaling.enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3  # as far back as anybody rolls
  progressDeadlineSeconds: 3600  # new pods wait for their migration, and a roll-out that has failed would be taken back while it runs
  {{- include "grpc-service.strategy" $root | nindent 2 }}
  selector:
    matchLabels: {{- $selector | nindent 6 }}
  template:
    metadata:
      labels: {{- printf "%s\ntrack: %s" (include "grpc-service.podLabels" $root) .track | nindent 8 }}
      annotations:
        # A process reads its settings once: another ConfigMap means other pods.
        checksum/config: {{ include "grpc-service.settings" $root | sha256sum }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ $name }}
      {{- include "grpc-service.podSecurity" (dict "root" $root "user" (include "grpc-service.user" $root)) | nindent 6 }}
      # preStop and the drain, and 15 s for what is closed after them: a few pools and clients, each in milliseconds, or given up after 3 s.
      terminationGracePeriodSeconds: {{ add $values.drain.preStopSeconds $values.drain.delaySeconds $values.drain.graceSeconds 15 }}
      containers:
        - name: {{ $component }}
          image: {{ include "grpc-service.image" (dict "image" .image "version" $root.Chart.AppVersion) | quote }}
          imagePullPolicy: {{ .image.pullPolicy | default $values.image.pullPolicy }}
          args: [run]
          {{- include "grpc-service.containerSecurity" $root | nindent 10 }}
          ports:
            - {name: grpc, containerPort: {{ include "grpc-service.port" (printf "%s.grpc" $component) }}}
            - {name: ops, containerPort: {{ include "grpc-service.port" (printf "%s.ops" $component) }}}
          envFrom:
            - configMapRef: {name: {{ $name }}}
          env:
            {{- include "grpc-service.databaseEnvironment" (dict "root" $root "user" (index $root.Values.global.database.users $component) "key" (printf "%s-password" $component)) | nindent 12 }}
            {{- include "grpc-service.redisEnvironment" $root | nindent 12 }}
            {{- include (printf "%s.environment" $component) $root | nindent 12 }}
          # "liveness" is SERVING from bind to exit; "" follows readiness: database, schema, keys and events. A restart mends none of those.
          startupProbe:
            grpc: {port: {{ include "grpc-service.port" (printf "%s.grpc" $component) }}, service: liveness}
            periodSeconds: 1
            failureThreshold: 60  # a minute for a cold node to load the code
            timeoutSeconds: 2
          readinessProbe:
            grpc: {port: {{ include "grpc-service.port" (printf "%s.grpc" $component) }}, service: ""}
            periodSeconds: 2
            failureThreshold: 2
            timeoutSeconds: 2
          livenessProbe:
            grpc: {port: {{ include "grpc-service.port" (printf "%s.grpc" $component) }}, service: liveness}
            periodSeconds: 10
            failureThreshold: 6  # a minute without any answer is a process that hangs, not one that is busy
            timeoutSeconds: 5
          {{- with include "grpc-service.preStop" $values.drain }}
          {{- . | nindent 10 }}
          {{- end }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with include "grpc-service.databaseMounts" $root }}
            {{- . | nindent 12 }}
            {{- end }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 64Mi}}  # nothing is written there but what a library may spill
        {{- with include "grpc-service.databaseVolumes" $root }}
        {{- . | nindent 8 }}
        {{- end }}
      {{- include "grpc-service.placement" (dict "root" $root "selector" $selector) | nindent 6 }}
{{- end }}
