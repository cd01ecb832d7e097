#!/usr/bin/env bash
# Installs the chart in a kind cluster, tries it, upgrades it, and scales and rolls it under load. Without arguments all of it, in this order:
#   load_images install smoke upgrade roll
# With some, those; `diagnose` writes down what the cluster looks like. Needs kind, Helm 4, kubectl, and `make images IMAGE_TAG=kind`.
set -euo pipefail
cd "$(dirname "$0")/../../.."

cluster=${KIND_CLUSTER:-task-manager}
report=${REPORT_DIR:-kind-report}
chart=helm/task-manager
release=task-manager
namespace=task-manager
mkdir -p "$report"

# Never another cluster than kind's, whatever the context is.
in_helm() { helm --kube-context "kind-$cluster" --namespace "$namespace" "$@"; }
in_kubectl() { kubectl --context "kind-$cluster" --namespace "$namespace" "$@"; }

load_images() {
  for image in auth-service task-service gateway; do
    kind load docker-image "task-manager/$image:kind" --name "$cluster"
  done
}

install() {
  in_helm install "$release" "$chart" --create-namespace --wait --timeout 8m \
    --values "$chart/ci/minimal-values.yaml" --values tests/deploy/kind/values.yaml
}

smoke() { in_helm test "$release" --logs --timeout 5m; }

changed() { in_helm upgrade "$release" "$chart" --reset-then-reuse-values --wait --timeout 8m --set "$1"; }

# A roll-out is over when the new pods are there. The old ones still serve and then drain, which is when a caller would notice.
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

# A line for each generated Secret: its name, and the checksum of what is in it.
checksums() {
  in_kubectl get secrets --selector "app.kubernetes.io/instance=$release" \
    --output jsonpath='{range .items[*]}{.metadata.name} {.data}{"\n"}{end}' |
    while read -r name data; do echo "$name $(sha256sum <<<"$data" | cut -d ' ' -f 1)"; done
}

# An upgrade changes what it is told to, and no secret; what is sealed and stored with them still opens.
upgrade() {
  checksums >"$report/secrets-before"
  [ "$(wc -l <"$report/secrets-before")" = 3 ] || { echo "there are other than three generated Secrets" >&2; return 1; }
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

# The gateway's address: that of the node, since a port-forward holds on to one pod.
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

# All of it, though one step should fail: the report is about each.
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

# Neither the content of Secrets nor variables' values are in it.
diagnose() {
  in_kubectl get pods,jobs,deployments,statefulsets,services,events --output wide >"$report/objects.txt" || true
  in_kubectl logs --selector "app.kubernetes.io/part-of=task-manager" --all-containers --prefix --tail 500 >"$report/logs.txt" || true
}

[ $# -gt 0 ] || set -- load_images install smoke upgrade roll
case $1 in
  scale | restart) "$@" ;;
  *) for step in "$@"; do echo "--- $step" && "$step"; done ;;
esac
