{{/*
The gateway's Deployment. Takes (dict "root" GATEWAY "canary" VALUES). The umbrella chart calls it, because only the umbrella has the values of both
components.

How a pod stops. terminationGracePeriodSeconds covers all steps and counts from the first one:
1. preStop, drain.preStopSeconds. The pod serves all requests until kube-proxy and ingress controllers have removed it, so that clients that reconnect in
   the next step reach another pod. The pod stays ready, so it also gets the traffic that a cloud's load balancer still sends to its node: kube-proxy
   forwards that traffic to a stopping pod only while the pod is ready.
2. SIGTERM, drain.delaySeconds. Envoy alone would exit at once, so gateway/supervise.py handles the signal: /readyz fails, answers tell clients to
   reconnect, and the pod still accepts new connections.
3. drain.graceSeconds. The pod accepts no new connections and finishes the running calls.
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
  revisionHistoryLimit: 3  # nobody rolls back further
  {{- include "grpc-service.strategy" $root | nindent 2 }}
  selector:
    matchLabels: {{- $selector | nindent 6 }}
  template:
    metadata:
      labels: {{- include "grpc-service.podLabels" $root | nindent 8 }}
      annotations:
        # The pod renders Envoy's configuration from the settings when it starts, so changed settings must replace the pods.
        checksum/config: {{ include "gateway.settings" $root | sha256sum }}
    spec:
      serviceAccountName: {{ $name }}
      {{- include "grpc-service.podSecurity" (dict "root" $root "user" (include "grpc-service.user" $root)) | nindent 6 }}
      # preStop, the drain, and 10 s for Envoy to exit.
      terminationGracePeriodSeconds: {{ add $values.drain.preStopSeconds $values.drain.delaySeconds $values.drain.graceSeconds 10 }}
      containers:
        - name: gateway
          image: {{ include "grpc-service.image" (dict "root" $root "image" $values.image) | quote }}
          imagePullPolicy: {{ $values.global.imagePullPolicy }}
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
          # The ops port reports only the gateway's own state: if a service is down, Kubernetes must neither restart the gateways nor stop routing to
          # all of them.
          startupProbe:
            httpGet: {path: /readyz, port: ops}
            periodSeconds: 1
            failureThreshold: 60  # Envoy waits until it has resolved the names of its upstreams
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
        - {name: tmp, emptyDir: {sizeLimit: 64Mi}}  # for the rendered configuration of Envoy
        {{- if $tls }}
        - {name: tls, secret: {secretName: {{ $tls }}}}
        {{- end }}
      {{- include "grpc-service.placement" $selector | nindent 6 }}
{{- end }}
