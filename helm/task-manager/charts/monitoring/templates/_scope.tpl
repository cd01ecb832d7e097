{{/* The selectors in rules/ match every release, which is correct for one system on one machine. In a cluster, another release must neither trigger
nor hide an alert of this one. So these templates add the namespace and the release to each selector. */}}

{{/* A query of rules/ for this release. Takes (list $ "rules/FILE" QUERY). Metrics of Kubernetes objects have the release in the object's name; all
others have the label `release` from the PodMonitor. */}}
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

{{/* A group of rules/ for this release, as a list with one element. Takes (list $ "rules/FILE" GROUP). */}}
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
