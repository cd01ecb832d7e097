{{/*
Brings the schema of a service up to its version, with credentials that no service has.

A plain Job, no hook: a post-install hook waits for services that wait for the schema, and a pre-install hook finds no database yet. The services are
not ready until their schema is there. A Job cannot be changed, so its name holds the version and a hash of all that it is made of: what changes makes
another, and Helm removes the one before. Its log stays until then. Applying a schema that is there already does nothing.

Takes (dict "root" $ "image" $.Values.image), or the canary's image: it has migrations of its own, and the stable version runs on their schema too.
*/}}
{{- define "grpc-service.migration" -}}
{{- $root := .root -}}
{{- $spec := include "grpc-service.migrationSpec" . -}}
{{- $tag := .image.tag | default $root.Chart.AppVersion | lower -}}
{{- $version := regexReplaceAll "[^a-z0-9]+" $tag "-" | trunc 8 | trimAll "-" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ printf "%s-migrate-%s-%s" (include "grpc-service.name" $root) $version ($spec | sha256sum | trunc 8) }}
  labels: {{- include "grpc-service.labelsOf" (list $root (include "grpc-service.migrationName" $root)) | nindent 4 }}
spec: {{- $spec | nindent 2 }}
{{- end }}

{{- define "grpc-service.migrationName" -}}
{{- printf "%s-migrate" .Chart.Name -}}
{{- end }}

{{- define "grpc-service.migrationSpec" -}}
{{- $root := .root -}}
backoffLimit: 10  # pods; with the growing pause between them half an hour, in which a new database comes up
completions: 1
template:
  metadata:
    labels:
      {{- include "grpc-service.selectorOf" (list $root (include "grpc-service.migrationName" $root)) | nindent 6 }}
      app.kubernetes.io/part-of: task-manager
      sidecar.istio.io/inject: "false"  # a proxy that does not end would keep the Job from ending
  spec:
    restartPolicy: Never  # a pod for each try, so that each log can be read
    serviceAccountName: {{ include "grpc-service.name" $root }}
    {{- include "grpc-service.podSecurity" (dict "root" $root "user" (include "grpc-service.user" $root)) | nindent 4 }}
    containers:
      - name: migrate
        image: {{ include "grpc-service.image" (dict "image" .image "version" $root.Chart.AppVersion) | quote }}
        imagePullPolicy: {{ .image.pullPolicy | default $root.Values.image.pullPolicy }}
        args: [migrate]
        {{- include "grpc-service.containerSecurity" $root | nindent 8 }}
        env:
          {{- include "grpc-service.databaseEnvironment" (dict "root" $root "user" $root.Values.global.database.users.migrator "key" "migrator-password") | nindent 10 }}
          - name: SERVICE_ROLE  # is granted the use of the schema, and no more
            value: {{ index $root.Values.global.database.users $root.Chart.Name }}
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
