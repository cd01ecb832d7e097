{{/* Checks that a JSON schema cannot express: combinations of values. Reports all errors in one message, each with its correction. */}}
{{- define "task-manager.validate" -}}
{{- $wrong := list -}}
{{- $global := .Values.global -}}
{{- $gateway := .Values.gateway -}}
{{- $task := index .Values "task-service" -}}

{{- if gt (len .Release.Name) 24 }}
{{- $wrong = append $wrong "the release's name has more than 24 characters, but the names of the migration Jobs, which begin with it, can have at most 63: choose a shorter one" }}
{{- end }}

{{- if and .Values.postgresql.enabled $global.database.host }}
{{- $wrong = append $wrong "global.database.host and postgresql.enabled are both set: set postgresql.enabled=false to use the database outside the release, or leave the host empty" }}
{{- else if not (or .Values.postgresql.enabled $global.database.host) }}
{{- $wrong = append $wrong "there is no database: set global.database.host, or postgresql.enabled=true" }}
{{- end }}
{{- $ofEach := true }}
{{- range list "migrator" "auth-service" "task-service" "task-worker" }}
{{- $ofEach = and $ofEach (get ($global.database.passwords | default dict) . | default dict).secret }}
{{- end }}
{{- if and $global.database.host (not (or $global.database.existingSecret $ofEach)) }}
{{- $wrong = append $wrong "the database outside the release needs passwords: set global.database.existingSecret to a Secret with migrator-password, auth-service-password, task-service-password and task-worker-password, or global.database.passwords to one Secret for each role" }}
{{- end }}
{{- if and (hasPrefix "verify-" $global.database.sslMode) (not $global.database.caSecret) }}
{{- $wrong = append $wrong "global.database.sslMode verifies the server's certificate: set global.database.caSecret to a Secret whose ca.crt signed the certificate" }}
{{- end }}
{{- $tls := or $global.database.caSecret (not (has $global.database.sslMode (list "" "disable"))) }}
{{- if and .Values.postgresql.enabled (or $tls (ne (int $global.database.port) 5432)) }}
{{- $wrong = append $wrong "global.database.port, sslMode and caSecret are for a database outside the release: set global.database.host and postgresql.enabled=false, or remove them" }}
{{- end }}

{{- if ne $global.database.pooler "none" }}
{{- if .Values.postgresql.enabled }}
{{- $wrong = append $wrong "global.database.pooler is for a PgBouncer outside the release: set global.database.host and postgresql.enabled=false, or remove it" }}
{{- end }}
{{- if and .Values.backup.enabled (not .Values.backup.database.host) }}
{{- $wrong = append $wrong "a dump needs a session of its own: set backup.database.host to PostgreSQL's own host, not to PgBouncer's" }}
{{- end }}
{{- end }}

{{- if and .Values.redis.enabled $global.redis.host }}
{{- $wrong = append $wrong "global.redis.host and redis.enabled are both set: set redis.enabled=false to use the Redis outside the release, or leave the host empty" }}
{{- else if not (or .Values.redis.enabled $global.redis.host) }}
{{- $wrong = append $wrong "there is no Redis: set global.redis.host, or redis.enabled=true" }}
{{- end }}
{{- if and $global.redis.caSecret (not $global.redis.tls) }}
{{- $wrong = append $wrong "global.redis.caSecret is for TLS: set global.redis.tls=true, or remove it" }}
{{- end }}
{{- if and .Values.redis.enabled (or $global.redis.tls $global.redis.user (ne (int $global.redis.port) 6379)) }}
{{- $wrong = append $wrong "global.redis.tls, user and port are for a Redis outside the release: set global.redis.host and redis.enabled=false, or remove them" }}
{{- end }}

{{- if and .Values.mesh.istio.enabled $global.clusterDomain }}
{{- $wrong = append $wrong "mesh.istio.enabled: the sidecars know no name with a final dot, so set global.clusterDomain to an empty text" }}
{{- end }}

{{- if and $gateway.ingress.enabled $gateway.routes.enabled }}
{{- $wrong = append $wrong "gateway.ingress.enabled and gateway.routes.enabled are both set: choose one way in" }}
{{- end }}
{{- if $gateway.ingress.enabled }}
{{- range list "className" "hosts" }}
{{- if not (get $gateway.ingress .) }}
{{- $wrong = append $wrong (printf "the Ingress needs gateway.ingress.%s" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $gateway.routes.enabled }}
{{- range list "parentRefs" "hostnames" }}
{{- if not (get $gateway.routes .) }}
{{- $wrong = append $wrong (printf "the routes need gateway.routes.%s" .) }}
{{- end }}
{{- end }}
{{- range $gateway.routes.grpcHostnames }}
{{- if has . $gateway.routes.hostnames }}
{{- $wrong = append $wrong (printf "%s is in both gateway.routes.hostnames and grpcHostnames: a listener accepts only one kind of route per host name, so give gRPC another" .) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Checks only limits written as 768Mi or 1Gi. 536870912 (512 MiB) is the gateway's default. */}}
{{- $memory := toString $gateway.resources.limits.memory }}
{{- if regexMatch "^[0-9]+[MG]i$" $memory }}
{{- $limit := mul (regexFind "^[0-9]+" $memory | int64) (hasSuffix "Gi" $memory | ternary 1024 1) }}
{{- if gt (add (div (int64 ($gateway.settings.MAX_HEAP_BYTES | default 536870912)) 1048576) 128) $limit }}
{{- $wrong = append $wrong (printf "gateway.resources.limits.memory, %s, is less than MAX_HEAP_BYTES plus the 128Mi that Envoy needs in addition" $memory) }}
{{- end }}
{{- end }}

{{- /* If backups are off, Helm does not load the chart `backup`, so its defaults are missing. */}}
{{- $restore := .Values.backup.restore | default dict }}
{{- if and (not .Values.backup.enabled) (or $restore.file $restore.recovered) }}
{{- $wrong = append $wrong "backup.restore needs the volume and the scripts of the backup: set backup.enabled=true" }}
{{- end }}

{{- if and $task.canary.enabled (not (or $task.canary.image.tag $task.canary.image.digest)) }}
{{- $wrong = append $wrong "the canary needs task-service.canary.image.tag or digest: set it to the version to try" }}
{{- end }}
{{- range $name := list "auth-service" "task-service" "gateway" }}
{{- $scaling := (index $.Values $name).autoscaling }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
{{- $wrong = append $wrong (printf "%s.autoscaling.minReplicas is more than maxReplicas" $name) }}
{{- end }}
{{- end }}

{{- if $wrong }}
{{- fail (printf "\n\nThese values are wrong:\n  - %s\n" (join "\n  - " $wrong)) }}
{{- end }}
{{- end }}
