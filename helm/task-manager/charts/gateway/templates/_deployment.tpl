{{/*
The gateway's Deployment. Takes (dict "root" GATEWAY "canary" VALUES): the umbrella calls it, which alone sees the values of both components.

How a pod ends, in terminationGracePeriodSeconds, which count from the first step:
1. preStop, drain.preStopSeconds. It serves as ever until kube-proxy and ingress controllers have taken it out, so that who is told to go in the next
   step comes to another pod. It is also ready all the while, and so gets what a cloud's load balancer still sends to its node: kube-proxy passes that on
   to a pod that ends only while it is ready.
2. SIGTERM, drain.delaySeconds. Envoy would end at once, so what the image runs before it takes the signal (gateway/supervise.py): /readyz falls,
   clients are told to go as they call, and new connections are still taken.
3. drain.graceSeconds. It takes no new connections, and calls under way end.
*/}}
{{- define "gateway.deployment" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $name := include "grpc-service.name" $root -}}
{{- $selector := include "grpc-service.selector" $root -}}
{{- $tls := $values.tls.existingSecret -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  labels: {{- include "grpc-service.labels" $root | nindent 4 }}
spec:
  {{- if not $values.autoscaling.enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3  # as far back as anybody rolls
  {{- include "grpc-service.strategy" $root | nindent 2 }}
  selector:
    matchLabels: {{- $selector | nindent 6 }}
  template:
    metadata:
      labels: {{- include "grpc-service.podLabels" $root | nindent 8 }}
      annotations:
        # Envoy's configuration is made of the settings when the pod starts: other settings mean other pods.
        checksum/config: {{ include "gateway.settings" $root | sha256sum }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ $name }}
      {{- include "grpc-service.podSecurity" (dict "root" $root "user" (include "grpc-service.user" $root)) | nindent 6 }}
      # preStop and the drain, and 10 s for Envoy to end.
      terminationGracePeriodSeconds: {{ add $values.drain.preStopSeconds $values.drain.delaySeconds $values.drain.graceSeconds 10 }}
      containers:
        - name: gateway
          image: {{ include "grpc-service.image" (dict "image" $values.image "version" $root.Chart.AppVersion) | quote }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          args: [run]
          {{- include "grpc-service.containerSecurity" $root | nindent 10 }}
          ports:
            - {name: http, containerPort: {{ include "grpc-service.port" "gateway.http" }}}
            {{- if $tls }}
            - {name: https, containerPort: {{ include "grpc-service.port" "gateway.https" }}}
            {{- end }}
            - {name: ops, containerPort: {{ include "grpc-service.port" "gateway.ops" }}}
          envFrom:
            - configMapRef: {name: {{ $name }}}
          {{- if .canary.enabled }}
          env:
            - name: TASK_CANARY_ENDPOINTS
              value: {{ printf "%s-canary:%s" (include "grpc-service.nameOf" (list $root "task-service")) (include "grpc-service.port" "task-service.grpc") }}
            - name: TASK_CANARY_WEIGHT  # percent
              value: {{ .canary.weight | quote }}
          {{- end }}
          # The ops port knows the gateway alone: a service that is away must not restart it, nor take all gateways out of the balance.
          startupProbe:
            httpGet: {path: /readyz, port: ops}
            periodSeconds: 1
            failureThreshold: 60  # Envoy waits for the first look-up of its upstreams' names
          readinessProbe:
            httpGet: {path: /readyz, port: ops}
            periodSeconds: 2
            failureThreshold: 2
            timeoutSeconds: 2
          livenessProbe:
            httpGet: {path: /livez, port: ops}
            periodSeconds: 10
            failureThreshold: 6
            timeoutSeconds: 5
          {{- with include "grpc-service.preStop" $values.drain }}
          {{- . | nindent 10 }}
          {{- end }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- if $tls }}
            - {name: tls, mountPath: /etc/gateway/tls, readOnly: true}
            {{- end }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 64Mi}}  # Envoy's configuration, which is made there
        {{- if $tls }}
        - {name: tls, secret: {secretName: {{ $tls }}}}
        {{- end }}
      {{- include "grpc-service.placement" (dict "root" $root "selector" $selector) | nindent 6 }}
{{- end }}
