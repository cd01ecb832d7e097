{{/* The addresses of PostgreSQL and Redis, and the logins. Without an external host, these are the stores in this release. */}}

{{- define "grpc-service.databaseSecret" -}}
{{- .Values.global.database.existingSecret | default (include "grpc-service.nameOf" (list . "database")) -}}
{{- end }}

{{- define "grpc-service.redisSecret" -}}
{{- .Values.global.redis.existingSecret | default (include "grpc-service.nameOf" (list . "redis")) -}}
{{- end }}

{{- define "grpc-service.keysSecret" -}}
{{- .Values.global.keys.existingSecret | default (include "grpc-service.nameOf" (list . "keys")) -}}
{{- end }}

{{/* An environment variable from a Secret. Takes (dict "name" "SERVICE_TOKEN" "secret" NAME "key" "service-token"). */}}
{{- define "grpc-service.fromSecret" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}}
{{- end }}

{{/* The sslmode for the database: the value, or a default that depends on `host` and `caSecret`. */}}
{{- define "grpc-service.sslMode" -}}
{{- $database := .Values.global.database -}}
{{- if $database.sslMode }}{{ $database.sslMode }}
{{- else if not $database.host }}disable
{{- else if $database.caSecret }}verify-full
{{- else }}require
{{- end }}
{{- end }}

{{/* An environment variable with the password of a login role. Takes (dict "root" $ "name" "PGPASSWORD" "role" "migrator"). */}}
{{- define "grpc-service.databasePassword" -}}
{{- $own := get (.root.Values.global.database.passwords | default dict) .role | default dict -}}
{{- $secret := $own.secret | default (include "grpc-service.databaseSecret" .root) -}}
{{- include "grpc-service.fromSecret" (dict "name" .name "secret" $secret "key" ($own.key | default (printf "%s-password" .role))) -}}
{{- end }}

{{/* DATABASE_URL. Kubernetes replaces $(NAME) by the password in `env`, but not in a ConfigMap. Takes (dict "root" $ "role" "auth-service"). */}}
{{- define "grpc-service.databaseEnvironment" -}}
{{- $root := .root -}}
{{- $database := $root.Values.global.database -}}
{{- $host := $database.host | default (include "grpc-service.hostOf" (list $root "postgresql")) -}}
{{ include "grpc-service.databasePassword" (dict "root" $root "name" "DATABASE_PASSWORD" "role" .role) }}
- name: DATABASE_URL
  value: postgresql://{{ index $database.users .role }}:$(DATABASE_PASSWORD)@{{ $host }}:{{ $database.port }}/{{ $database.name }}?sslmode={{ include "grpc-service.sslMode" $root }}
    {{- if $database.caSecret }}&sslrootcert=/etc/database-ca/ca.crt{{ end }}
{{- end }}

{{/* The CAs of the stores: mounts and volumes. The clients read a CA for each new connection, so a changed Secret needs no restart. */}}
{{- define "grpc-service.databaseMounts" -}}
{{- if .Values.global.database.caSecret -}}
- {name: database-ca, mountPath: /etc/database-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "grpc-service.databaseVolumes" -}}
{{- with .Values.global.database.caSecret -}}
- {name: database-ca, secret: {secretName: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}}
{{- end }}
{{- end }}

{{- define "grpc-service.redisMounts" -}}
{{- if .Values.global.redis.caSecret -}}
- {name: redis-ca, mountPath: /etc/redis-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "grpc-service.redisVolumes" -}}
{{- with .Values.global.redis.caSecret -}}
- {name: redis-ca, secret: {secretName: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}}
{{- end }}
{{- end }}

{{- define "grpc-service.redisEnvironment" -}}
{{- $redis := .Values.global.redis -}}
{{- $host := $redis.host | default (include "grpc-service.hostOf" (list . "redis")) -}}
{{- /* An external Redis without a Secret has no password. */ -}}
{{- $login := "" -}}
{{- if or $redis.existingSecret (not $redis.host) -}}
{{- $login = printf "%s:$(REDIS_PASSWORD)@" $redis.user -}}
{{ include "grpc-service.fromSecret" (dict "name" "REDIS_PASSWORD" "secret" (include "grpc-service.redisSecret" .) "key" "redis-password") }}
{{ end -}}
- name: REDIS_URL
  value: {{ $redis.tls | ternary "rediss" "redis" }}://{{ $login }}{{ $host }}:{{ $redis.port }}/{{ $redis.database }}
    {{- if $redis.caSecret }}?ssl_ca_certs=/etc/redis-ca/ca.crt{{ end }}
{{- end }}
