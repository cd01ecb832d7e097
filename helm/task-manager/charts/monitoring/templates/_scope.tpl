{{/* The rules ask for whatever is there, which is right for one system on one machine. In a cluster there may be another release, which must neither
count nor hide what this one lacks: each selector gets the namespace and the release. */}}

{{/* A query of rules/ for this release. Takes (list $ "rules/FILE" QUERY). What only Kubernetes knows has its release in its name, all else by the PodMonitor. */}}
{{- define "monitoring.query" -}}
{{- $root := index . 0 -}}
{{- $scope := printf "namespace=%q, " $root.Release.Namespace -}}
{{- $query := index . 2 -}}
{{- if eq (index . 1) "rules/cluster.yaml" -}}
{{- $query = replace "\".+-" (printf "\"%s-" $root.Release.Name) $query | replace "26 * 3600" (printf "%d * 3600" (int $root.Values.rules.backupMaxAgeHours)) -}}
{{- else -}}
{{- $scope = printf "%srelease=%q, " $scope $root.Release.Name -}}
{{- end -}}
{{- replace "{" (printf "{%s" $scope) $query -}}
{{- end }}

{{/* A group of rules/ for this release, as a list of one. Takes (list $ "rules/FILE" GROUP). */}}
{{- define "monitoring.group" -}}
{{- $root := index . 0 -}}
{{- $path := index . 1 -}}
{{- $group := index . 2 -}}
{{- range $rule := $group.rules -}}
{{- $_ := set $rule "expr" (include "monitoring.query" (list $root $path $rule.expr)) -}}
{{- with $rule.annotations -}}
{{- if $root.Values.rules.runbook -}}
{{- $_ := set . "runbook_url" (replace "docs/runbook.md" $root.Values.rules.runbook .runbook_url) -}}
{{- else -}}
{{- $_ := unset . "runbook_url" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- list $group | toYaml -}}
{{- end }}
