#!/usr/bin/env bash
# Installs the chart in a kind cluster, tests it, upgrades it, and scales and rolls it under load. Without arguments it runs these steps in order:
#   load_images install smoke upgrade roll
# Otherwise it runs the given steps; `diagnose` writes the cluster's state to files. Needs kind, Helm 4, kubectl, and `make images IMAGE_TAG=kind`.
set -euo pipefail
cd "$(dirname "$0")/../../.."

cluster=${KIND_CLUSTER:-task-manager}
report=${REPORT_DIR:-kind-report}
chart=helm/task-manager
release=task-manager
namespace=task-manager
mkdir -p "$report"

# Always uses kind's cluster, whatever the current context is.
in_helm() { helm --kube-context "kind-$cluster" --namespace "$namespace" "$@"; }
in_kubectl() { kubectl --context "kind-$cluster" --namespace "$namespace" "$@"; }

load_images() {
  for image in auth-service task-service gateway; do
    kind load docker-image "localhost/task-manager/$image:kind" --name "$cluster"
  done
}

install() {
  in_helm install "$release" "$chart" --create-namespace --wait --timeout 8m \
    --values "$chart/ci/minimal-values.yaml" --values tests/deploy/kind/values.yaml
}

smoke() { in_helm test "$release" --logs --timeout 5m; }

changed() { in_helm upgrade "$release" "$chart" --reset-then-reuse-values --wait --timeout 8m --set "$1"; }

# `rollout status` returns when the new pods are ready. The old pods still serve and drain, and this is when calls could fail.
old_pods_gone() {
  local ending
  for _ in {1..120}; do
    ending=$(in_kubectl get pods --output jsonpath='{.items[?(@.metadata.deletionTimestamp)].metadata.name}')
    [ -n "$ending" ] || return 0
    sleep 1
  done
  echo "still there after two minutes: $ending" >&2
  return 1
}

# Prints one line for each generated Secret: its name and the checksum of its data.
checksums() {
  in_kubectl get secrets --selector "app.kubernetes.io/instance=$release" \
    --output jsonpath='{range .items[*]}{.metadata.name} {.data}{"\n"}{end}' |
    while read -r name data; do echo "$name $(sha256sum <<<"$data" | cut -d ' ' -f 1)"; done
}

# An upgrade must change the given value but no Secret. Data that was encrypted with the keys must still be readable.
upgrade() {
  checksums >"$report/secrets-before"
  [ "$(wc -l <"$report/secrets-before")" = 3 ] || { echo "the number of generated Secrets is not three" >&2; return 1; }
  changed task-service.settings.LOG_LEVEL=DEBUG
  [ "$(in_kubectl get configmap "$release-task-service" --output jsonpath='{.data.LOG_LEVEL}')" = DEBUG ] || { echo "nothing was upgraded" >&2; return 1; }
  checksums >"$report/secrets-after"
  diff "$report/secrets-before" "$report/secrets-after"
  echo "the secrets are the same after the upgrade:" && cat "$report/secrets-after"
  smoke
}

scale() { changed "$1.replicas=$2" && old_pods_gone; }

restart() {
  in_kubectl rollout restart "deployment/$release-$1"
  in_kubectl rollout status "deployment/$release-$1" --timeout 5m
  old_pods_gone
}

# The gateway's address is a port of the node, because a port-forward always uses the same pod.
url() {
  local node port
  node=$(in_kubectl get nodes --output jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')
  port=$(in_kubectl get service "$release-gateway" --output jsonpath='{.spec.ports[?(@.name=="http")].nodePort}')
  echo "http://$node:$port"
}

# under_load WHAT COMMAND…: runs a command of this script while clients call.
under_load() {
  .venv/bin/python -m tests.deploy.kind.load --url "$(url)" --report "$report" --name "$1" -- tests/deploy/kind/run.sh "${@:2}" || failed=1
}

# Runs all steps even if one fails, so that the report has all of them.
roll() {
  local failed=0
  under_load "task-service: 1 to 3 pods" scale task-service 3
  under_load "gateway: 1 to 3 pods" scale gateway 3
  under_load "task-service: rolled" restart task-service
  under_load "gateway: rolled" restart gateway
  under_load "auth-service: rolled" restart auth-service
  under_load "task-service: 3 to 2 pods" scale task-service 2
  under_load "gateway: 3 to 2 pods" scale gateway 2
  return "$failed"
}

# The output contains neither the data of Secrets nor the values of variables.
diagnose() {
  in_kubectl get pods,jobs,deployments,statefulsets,services,events --output wide >"$report/objects.txt" || true
  in_kubectl logs --selector "app.kubernetes.io/part-of=task-manager" --all-containers --prefix --tail 500 >"$report/logs.txt" || true
}

[ $# -gt 0 ] || set -- load_images install smoke upgrade roll
case $1 in
  scale | restart) "$@" ;;
  *) for step in "$@"; do echo "--- $step" && "$step"; done ;;
esac
