{{/* Templates that the pods of a backup and of a restore share. */}}

{{- define "backup.restoreName" -}}
{{- printf "%s-restore" .Chart.Name -}}
{{- end }}

{{/* The mounts: the scripts, the backups, and /tmp for psql. */}}
{{- define "backup.mounts" -}}
- {name: scripts, mountPath: /scripts, readOnly: true}
- {name: backups, mountPath: /backups}
- {name: tmp, mountPath: /tmp}
{{- with include "grpc-service.databaseMounts" . }}
{{ . }}
{{- end }}
{{- end }}

{{- define "backup.volumes" -}}
- {name: scripts, configMap: {name: {{ include "grpc-service.name" . }}}}
- {name: backups, persistentVolumeClaim: {claimName: {{ .Values.storage.existingClaim | default (include "grpc-service.name" .) }}}}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- with include "grpc-service.databaseVolumes" . }}
{{ . }}
{{- end }}
{{- end }}

{{/* libpq's variables: PostgreSQL's own host (not PgBouncer), and the migration role, which owns everything. */}}
{{- define "backup.databaseEnvironment" -}}
{{- $database := .Values.global.database -}}
- name: PGHOST
  value: {{ .Values.database.host | default $database.host | default (include "grpc-service.nameOf" (list . "postgresql")) }}
- name: PGPORT
  value: {{ .Values.database.port | default $database.port | quote }}
- name: PGDATABASE
  value: {{ $database.name }}
- name: PGUSER
  value: {{ $database.users.migrator }}
{{ include "grpc-service.databasePassword" (dict "root" . "name" "PGPASSWORD" "role" "migrator") }}
- name: PGSSLMODE
  value: {{ include "grpc-service.sslMode" . }}
{{- if $database.caSecret }}
- name: PGSSLROOTCERT
  value: /etc/database-ca/ca.crt
{{- end }}
{{- end }}

{{/* A container with the PostgreSQL image that runs one of the scripts. Takes (dict "root" $ "name" NAME "args" LIST). */}}
{{- define "backup.container" -}}
{{- $root := .root -}}
name: {{ .name }}
image: {{ include "grpc-service.image" (dict "root" $root "image" $root.Values.image) | quote }}
imagePullPolicy: {{ $root.Values.global.imagePullPolicy }}
command: [sh]
args: {{- toYaml .args | nindent 2 }}
{{ include "grpc-service.containerSecurity" $root }}
env:
  {{- include "backup.databaseEnvironment" $root | nindent 2 }}
  - name: BACKUP_RETENTION_DAYS
    value: {{ $root.Values.retentionDays | quote }}
resources: {{- toYaml $root.Values.resources | nindent 2 }}
volumeMounts: {{- include "backup.mounts" $root | nindent 2 }}
{{- end }}

{{/* A container that runs rclone. Takes (dict "root" $ "name" NAME "args" LIST). */}}
{{- define "backup.rclone" -}}
{{- $root := .root -}}
{{- $s3 := $root.Values.s3 -}}
name: {{ .name }}
image: {{ include "grpc-service.image" (dict "root" $root "image" $s3.image) | quote }}
imagePullPolicy: {{ $root.Values.global.imagePullPolicy }}
args: {{- toYaml .args | nindent 2 }}
{{ include "grpc-service.containerSecurity" $root }}
env:
  - name: RCLONE_CONFIG  # this file does not exist: variables define the remote "bucket"
    value: /tmp/rclone.conf
  - name: RCLONE_CONFIG_BUCKET_TYPE
    value: s3
  - name: RCLONE_CONFIG_BUCKET_PROVIDER
    value: {{ $s3.provider }}
  - name: RCLONE_CONFIG_BUCKET_NO_CHECK_BUCKET  # otherwise the identity would need the permission to create buckets
    value: "true"
  {{- with $s3.endpoint }}
  - name: RCLONE_CONFIG_BUCKET_ENDPOINT
    value: {{ . }}
  {{- end }}
  {{- with $s3.region }}
  - name: RCLONE_CONFIG_BUCKET_REGION
    value: {{ . }}
  {{- end }}
  {{- if $s3.existingSecret }}
  {{- include "grpc-service.fromSecret" (dict "name" "RCLONE_CONFIG_BUCKET_ACCESS_KEY_ID" "secret" $s3.existingSecret "key" "access-key-id") | nindent 2 }}
  {{- include "grpc-service.fromSecret" (dict "name" "RCLONE_CONFIG_BUCKET_SECRET_ACCESS_KEY" "secret" $s3.existingSecret "key" "secret-access-key") | nindent 2 }}
  {{- else }}
  - name: RCLONE_CONFIG_BUCKET_ENV_AUTH
    value: "true"
  {{- end }}
resources: {{- toYaml $root.Values.resources | nindent 2 }}
volumeMounts:
  - {name: backups, mountPath: /backups}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* The variables that flush-redis.sh reads. */}}
{{- define "backup.redisEnvironment" -}}
{{- $redis := .Values.global.redis -}}
- name: REDIS_HOST
  value: {{ $redis.host | default (include "grpc-service.nameOf" (list . "redis")) }}
- name: REDIS_PORT
  value: {{ $redis.port | quote }}
- name: REDIS_DATABASE
  value: {{ $redis.database | quote }}
- name: REDIS_USER
  value: {{ $redis.user | quote }}
- name: REDIS_TLS
  value: {{ $redis.tls | quote }}
{{- if $redis.caSecret }}
- name: REDIS_CA
  value: /etc/redis-ca/ca.crt
{{- end }}
{{- if or $redis.existingSecret (not $redis.host) }}
{{ include "grpc-service.fromSecret" (dict "name" "REDISCLI_AUTH" "secret" (include "grpc-service.redisSecret" .) "key" "redis-password") }}
{{- end }}
{{- end }}

{{/* The pods' ServiceAccount and security context. Takes $. User 999 is `postgres` in the official image and owns the files on the volume. */}}
{{- define "backup.pod" -}}
restartPolicy: Never  # one pod per attempt, so that the log of each attempt stays readable
serviceAccountName: {{ include "grpc-service.name" . }}
{{ include "grpc-service.podSecurity" (dict "root" . "user" 999) }}
{{- end }}

{{/* The labels of a pod. Takes (list $ COMPONENT). */}}
{{- define "backup.podLabels" -}}
{{ include "grpc-service.selectorOf" . }}
app.kubernetes.io/part-of: task-manager
sidecar.istio.io/inject: "false"  # the proxy would keep running, so the Job would never end
{{- end }}
