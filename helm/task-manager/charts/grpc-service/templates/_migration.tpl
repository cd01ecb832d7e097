{{/*
A Job that migrates the schema of a service to the version of the image. It logs in as the migration role, which no service uses.

The Job is not a hook: a post-install hook would wait for services that wait for the schema, and before a pre-install hook there is no database. The
services are not ready until their schema version exists. A Job is immutable, and a failed one does not run again. So its name contains a hash of its
spec, for tools that render the chart without Helm, and the revision of the release: each upgrade creates another Job. If the schema is already up to
date, the Job changes nothing. Helm deletes the Jobs of the revision that it replaces; old-jobs.yaml of the umbrella deletes those that Helm does not
know any more.

Takes (dict "root" $ "image" $.Values.image), or the canary's image: the canary has its own migrations, and the stable version runs on their schema.
"worker" is the component that is the service's worker, if it has one.
*/}}
{{- define "grpc-service.migration" -}}
{{ include "grpc-service.workload" (list .root (include "grpc-service.migrationJob" .)) }}
{{- end }}

{{- define "grpc-service.migrationJob" -}}
{{- $root := .root -}}
{{- $spec := include "grpc-service.migrationSpec" . -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "grpc-service.jobName" (list $root (include "grpc-service.migrationName" $root) $spec) }}
  labels: {{- include "grpc-service.labelsOf" (list $root (include "grpc-service.migrationName" $root)) | nindent 4 }}
spec: {{- $spec | nindent 2 }}
{{- end }}

{{/* The name of a Job that runs once per revision. Takes (list $ COMPONENT SPEC). */}}
{{- define "grpc-service.jobName" -}}
{{- $root := index . 0 -}}
{{- printf "%s-%s-r%d" (include "grpc-service.nameOf" .) (printf "%s%s" (index . 2) (include "grpc-service.podValues" $root) | sha256sum | trunc 8) (int $root.Release.Revision) -}}
{{- end }}

{{/* A Job that has ended stays for a day, so that its log can be read. It also removes a Job that no tool deletes. */}}
{{- define "grpc-service.jobLifetime" -}}
ttlSecondsAfterFinished: 86400
{{- end }}

{{- define "grpc-service.migrationName" -}}
{{- printf "%s-migrate" .Chart.Name -}}
{{- end }}

{{- define "grpc-service.migrationSpec" -}}
{{- $root := .root -}}
backoffLimit: 10  # more than the deadline leaves time for
activeDeadlineSeconds: {{ $root.Values.migration.deadlineSeconds }}
{{ include "grpc-service.jobLifetime" $root }}
completions: 1
template:
  metadata:
    labels:
      {{- include "grpc-service.selectorOf" (list $root (include "grpc-service.migrationName" $root)) | nindent 6 }}
      app.kubernetes.io/part-of: task-manager
      sidecar.istio.io/inject: "false"  # the proxy would keep running, so the Job would never end
  spec:
    restartPolicy: Never  # one pod per attempt, so that the log of each attempt stays readable
    serviceAccountName: {{ include "grpc-service.name" $root }}
    {{- include "grpc-service.podSecurity" (dict "root" $root "user" (include "grpc-service.user" $root)) | nindent 4 }}
    containers:
      - name: migrate
        image: {{ include "grpc-service.image" (dict "root" $root "image" .image) | quote }}
        imagePullPolicy: {{ $root.Values.global.imagePullPolicy }}
        args: [migrate]
        {{- include "grpc-service.containerSecurity" $root | nindent 8 }}
        env:
          {{- include "grpc-service.databaseEnvironment" (dict "root" $root "role" "migrator") | nindent 10 }}
          - name: SERVICE_ROLE  # the migration grants this role the use of the schema, and no other right
            value: {{ index $root.Values.global.database.users $root.Chart.Name }}
          {{- with .worker }}
          - name: WORKER_ROLE  # the migration grants this role what its worker needs, and no other right
            value: {{ index $root.Values.global.database.users . }}
          {{- end }}
        resources: {{- toYaml $root.Values.migration.resources | nindent 10 }}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
          {{- with include "grpc-service.databaseMounts" $root }}
          {{- . | nindent 10 }}
          {{- end }}
    volumes:
      - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
      {{- with include "grpc-service.databaseVolumes" $root }}
      {{- . | nindent 6 }}
      {{- end }}
{{- end }}
