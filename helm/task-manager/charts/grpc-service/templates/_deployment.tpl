{{/*
The Deployment of a gRPC service. Takes (dict "root" $ "track" "stable" "image" $.Values.image), or another track and image for a canary. For a
component without a migration of its own, "command" is the command of the image and "migrationSeconds" the time that the migration may take.
The template COMPONENT.environment adds the component's own environment variables.

How a pod stops. terminationGracePeriodSeconds covers all steps and counts from the first one:
1. preStop, drain.preStopSeconds. The endpoints no longer contain the pod, but a cached answer of the cluster's DNS may. The pod serves all calls until
   callers have resolved again and know the pods that replace it. If it reported NOT_SERVING earlier, the gateway could have no pod left, because
   minReadySeconds delays only a roll-out, not the draining of a node.
2. SIGTERM, drain.delaySeconds. The process reports NOT_SERVING and still accepts calls, until load balancers with health checks have noticed. If
   something other than Kubernetes stops the process, without a hook, this is its only warning to callers.
3. drain.graceSeconds. The process rejects new calls, ends its streams, and finishes the running calls (servicekit/process/runtime.py).
4. The process closes its pools and clients.
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
  {{- else if not ($values.autoscaling | default dict).enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3  # nobody rolls back further
  # New pods wait for their migration, and then need up to two minutes to become ready. With a shorter deadline, Helm could roll back before that.
  progressDeadlineSeconds: {{ add (.migrationSeconds | default ($values.migration | default dict).deadlineSeconds) 120 }}
  {{- include "grpc-service.strategy" $root | nindent 2 }}
  selector:
    matchLabels: {{- $selector | nindent 6 }}
  template:
    metadata:
      labels: {{- printf "%s\ntrack: %s" (include "grpc-service.podLabels" $root) .track | nindent 8 }}
      annotations:
        # A process reads its settings only when it starts, so a changed ConfigMap must replace the pods.
        checksum/config: {{ include "grpc-service.settings" $root | sha256sum }}
    spec:
      serviceAccountName: {{ $name }}
      {{- include "grpc-service.podSecurity" (dict "root" $root "user" (include "grpc-service.user" $root)) | nindent 6 }}
      # preStop, the drain, and 15 s to close pools and clients. Each closes within milliseconds; after 3 s the process gives up on it.
      terminationGracePeriodSeconds: {{ add $values.drain.preStopSeconds $values.drain.delaySeconds $values.drain.graceSeconds 15 }}
      containers:
        - name: {{ $component }}
          image: {{ include "grpc-service.image" (dict "root" $root "image" .image) | quote }}
          imagePullPolicy: {{ $values.global.imagePullPolicy }}
          args: [{{ .command | default "run" }}]
          {{- include "grpc-service.containerSecurity" $root | nindent 10 }}
          ports:
            - {name: grpc, containerPort: {{ include "grpc-service.port" (printf "%s.grpc" $component) }}}
            - {name: ops, containerPort: {{ include "grpc-service.port" (printf "%s.ops" $component) }}}
          envFrom:
            - configMapRef: {name: {{ $name }}}
          env:
            {{- include "grpc-service.databaseEnvironment" (dict "root" $root "role" $component) | nindent 12 }}
            {{- include "grpc-service.redisEnvironment" $root | nindent 12 }}
            {{- with include (printf "%s.environment" $component) $root }}
            {{- . | nindent 12 }}
            {{- end }}
          # The health service "liveness" is SERVING from bind to exit. "" follows readiness: database, schema, keys and events. A restart repairs
          # none of these.
          startupProbe:
            grpc: {port: {{ include "grpc-service.port" (printf "%s.grpc" $component) }}, service: liveness}
            periodSeconds: 1
            failureThreshold: 60  # one minute, so that a cold node can load the code
            timeoutSeconds: 2
          readinessProbe:
            grpc: {port: {{ include "grpc-service.port" (printf "%s.grpc" $component) }}, service: ""}
            periodSeconds: 2
            failureThreshold: 2
            timeoutSeconds: 2
          livenessProbe:
            grpc: {port: {{ include "grpc-service.port" (printf "%s.grpc" $component) }}, service: liveness}
            periodSeconds: 10
            failureThreshold: 6  # without an answer for one minute, the process hangs and is not only busy
            timeoutSeconds: 5
          {{- with include "grpc-service.preStop" $values.drain }}
          {{- . | nindent 10 }}
          {{- end }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- range list "database" "redis" }}
            {{- with include (printf "grpc-service.%sMounts" .) $root }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- end }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 64Mi}}  # the process writes nothing there; a library may
        {{- range list "database" "redis" }}
        {{- with include (printf "grpc-service.%sVolumes" .) $root }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- end }}
      {{- include "grpc-service.placement" $selector | nindent 6 }}
{{- end }}
