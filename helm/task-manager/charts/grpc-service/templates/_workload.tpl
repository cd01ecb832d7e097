{{/*
What an operator adds to pods: `global.pod` for the pods of all components, and `COMPONENT.pod` for those of one. Every workload of the chart goes
through "grpc-service.workload", so every value applies to every workload.
*/}}

{{/* The values of a component's pods, as YAML, without empty ones. Lists of `global.pod` come first; a component's map entries and texts win. */}}
{{- define "grpc-service.podValues" -}}
{{- $all := dict -}}
{{- range $part := list (.Values.global.pod | default dict) (.Values.pod | default dict) -}}
{{- range $key, $value := $part -}}
{{- if kindIs "slice" $value -}}
{{- $_ := set $all $key (concat (get $all $key | default list) $value) -}}
{{- else if kindIs "map" $value -}}
{{- $_ := set $all $key (mergeOverwrite (deepCopy (get $all $key | default dict)) $value) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $all $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := deepCopy $all -}}
{{- if not (or $value (kindIs "float64" $value)) -}}{{- $_ := unset $all $key -}}{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end }}

{{/*
Adds these values to the text of a workload. Takes (list $ TEXT). Without values, the text stays as it is, with its comments.
*/}}
{{- define "grpc-service.workload" -}}
{{- $text := last . -}}
{{- $pod := include "grpc-service.podValues" (first .) | fromYaml -}}
{{- if $pod -}}
{{- $workload := fromYaml $text -}}
{{- $template := $workload -}}
{{- if eq $workload.kind "CronJob" -}}
{{- $template = $workload.spec.jobTemplate.spec.template -}}
{{- else if ne $workload.kind "Pod" -}}
{{- $template = $workload.spec.template -}}
{{- end -}}
{{- include "grpc-service.addMetadata" (list $template.metadata $pod) -}}
{{- include "grpc-service.addToContainers" (list $template.spec $pod) -}}
{{- include "grpc-service.addToSpec" (list $workload.kind $template $pod) -}}
{{- toYaml $workload -}}
{{- else -}}
{{- $text -}}
{{- end -}}
{{- end }}

{{/* Labels and annotations. Those of the chart win, because selectors and roll-outs depend on them. */}}
{{- define "grpc-service.addMetadata" -}}
{{- $metadata := first . -}}
{{- range $key := list "labels" "annotations" -}}
{{- with get (last $) $key -}}
{{- $_ := set $metadata $key (mergeOverwrite (deepCopy .) (get $metadata $key | default dict)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Variables and mounts, in all containers of the chart, also the initial ones. A variable of the same name replaces the chart's. */}}
{{- define "grpc-service.addToContainers" -}}
{{- $spec := first . -}}
{{- $pod := last . -}}
{{- range $container := concat ($spec.initContainers | default list) $spec.containers -}}
{{- with $pod.extraEnv -}}
{{- $names := list -}}
{{- range . }}{{- $names = append $names .name -}}{{- end -}}
{{- $env := list -}}
{{- range $container.env -}}
{{- if not (has .name $names) -}}{{- $env = append $env . -}}{{- end -}}
{{- end -}}
{{- $_ := set $container "env" (concat $env .) -}}
{{- end -}}
{{- range $from, $to := dict "extraEnvFrom" "envFrom" "extraVolumeMounts" "volumeMounts" -}}
{{- with get $pod $from -}}
{{- $_ := set $container $to (concat (get $container $to | default list) .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Everything else in the pod's spec. Takes (list KIND TEMPLATE PODVALUES). */}}
{{- define "grpc-service.addToSpec" -}}
{{- $kind := index . 0 -}}
{{- $template := index . 1 -}}
{{- $pod := index . 2 -}}
{{- $spec := $template.spec -}}
{{- with $pod.extraVolumes -}}
{{- $_ := set $spec "volumes" (concat ($spec.volumes | default list) .) -}}
{{- end -}}
{{- /* First, because the initial containers of the chart may need one that keeps running, such as a proxy to the database. */ -}}
{{- with $pod.initContainers -}}
{{- $_ := set $spec "initContainers" (concat . ($spec.initContainers | default list)) -}}
{{- end -}}
{{- /* Beside a sidecar, the pod of a Job would never end. There it must be an initial container with `restartPolicy: Always`. */ -}}
{{- if and $pod.sidecars (has $kind (list "Deployment" "StatefulSet")) -}}
{{- $_ := set $spec "containers" (concat $spec.containers $pod.sidecars) -}}
{{- end -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" -}}
{{- with get $pod $key -}}{{- $_ := set $spec $key . -}}{{- end -}}
{{- end -}}
{{- with $pod.topologySpreadConstraints -}}
{{- $_ := set $spec "topologySpreadConstraints" list -}}
{{- range . -}}
{{- $selector := dict "matchLabels" (pick $template.metadata.labels "app.kubernetes.io/name" "app.kubernetes.io/instance" "track") -}}
{{- $default := dict "maxSkew" 1 "labelSelector" $selector -}}
{{- if eq $kind "Deployment" -}}
{{- $_ := set $default "matchLabelKeys" (list "pod-template-hash") -}}
{{- end -}}
{{- $_ := set $spec "topologySpreadConstraints" (append $spec.topologySpreadConstraints (merge (deepCopy .) $default)) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $pod "runAsUser" -}}
{{- if eq (int64 $pod.runAsUser) 0 -}}{{- $_ := unset $spec.securityContext "fsGroupChangePolicy" -}}{{- end -}}
{{- range list "runAsUser" "runAsGroup" "fsGroup" -}}
{{- if gt (int64 $pod.runAsUser) 0 -}}
{{- $_ := set $spec.securityContext . (int64 $pod.runAsUser) -}}
{{- else -}}
{{- $_ := unset $spec.securityContext . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := $pod.spec -}}
{{- $_ := set $spec $key $value -}}
{{- end -}}
{{- end }}
