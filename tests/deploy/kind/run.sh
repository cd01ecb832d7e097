#!/usr/bin/env bash
# Installs the chart in a cluster, tests it, and changes and breaks it under load. Without arguments it runs these steps in order:
#   load_images install smoke reach upgrade roll evict withdraw outage reinstall
# Otherwise it runs the given steps; `diagnose` writes the cluster's state to files. Needs Helm 4 and kubectl. TEST_CLUSTER says which cluster:
#   kind     (default) the kind cluster KIND_CLUSTER, with the images of `make images IMAGE_TAG=kind`
#   lab      the cluster of the program KUBE_LAB, with images that the program CONTAINER_LAB builds
#   current  the current context of KUBECONFIG, whose nodes have the images
set -euo pipefail
cd "$(dirname "$0")/../../.."

cluster=${KIND_CLUSTER:-task-manager}
report=${REPORT_DIR:-kind-report}
chart=helm/task-manager
release=task-manager
namespace=task-manager
mkdir -p "$report"

case ${TEST_CLUSTER:-kind} in
  kind) context="kind-$cluster" ;; # whatever the current context is
  lab) eval "$("$KUBE_LAB" env)" && context=kube-lab ;;
  current) context=$(kubectl config current-context) ;;
  *) echo "TEST_CLUSTER: kind, lab or current" >&2 && exit 2 ;;
esac
kubectl=(kubectl --context "$context" --namespace "$namespace")
in_helm() { helm --kube-context "$context" --namespace "$namespace" "$@"; }
in_kubectl() { "${kubectl[@]}" "$@"; }

load_images() {
  local image archive
  case ${TEST_CLUSTER:-kind} in
    kind) for image in auth-service task-service gateway; do kind load docker-image "localhost/task-manager/$image:kind" --name "$cluster"; done ;;
    lab)
      "$KUBE_LAB" stores
      for image in auth-service task-service gateway; do
        local arguments=(--target "$image")
        [ "$image" != gateway ] || arguments=(-f gateway/Dockerfile)
        "$CONTAINER_LAB" build "localhost/task-manager/$image:kind" . "${arguments[@]}" >"$report/$image.log" 2>&1
        archive=$report/$image.tar
        podman save --quiet --format oci-archive --output "$archive" "localhost/task-manager/$image:kind"
        "$KUBE_LAB" image-import "$archive"
        rm "$archive"
      done ;;
  esac
}

# With Pod Security "restricted", as an operator would have it.
install() {
  kubectl --context "$context" create namespace "$namespace" --dry-run=client --output yaml | kubectl --context "$context" apply --filename -
  kubectl --context "$context" label --overwrite namespace "$namespace" pod-security.kubernetes.io/enforce=restricted
  in_helm install "$release" "$chart" --wait --wait-for-jobs --timeout 8m \
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

# Every pod of a component leaves by the API for evictions, which respects the disruption budget, one after the other.
evicted() {
  local pod
  for pod in $(in_kubectl get pods --selector "app.kubernetes.io/name=$1" --field-selector status.phase=Running --output name); do
    until printf '{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "%s"}}' "${pod#pod/}" |
      in_kubectl create --raw "/api/v1/namespaces/$namespace/pods/${pod#pod/}/eviction" --filename - >/dev/null 2>&1; do sleep 1; done
    in_kubectl rollout status "deployment/$release-$1" --timeout 5m
  done
  old_pods_gone
}

# A pod is deleted without its grace period: the kubelet gives the process one second.
killed() {
  in_kubectl delete "$(in_kubectl get pods --selector "app.kubernetes.io/name=$1" --field-selector status.phase=Running --output name | head -n 1)" \
    --grace-period 0 --force
  in_kubectl rollout status "deployment/$release-$1" --timeout 5m
  old_pods_gone
}

evict() {
  local failed=0 component
  for component in task-service gateway; do
    under_load "$component: every pod evicted" evicted "$component"
  done
  under_load "task-service: a pod deleted by force" killed task-service
  return "$failed"
}

# An upgrade to an image that does not exist fails, and is repaired by an upgrade, or withdrawn by a rollback. The old pods serve meanwhile, and no
# Job of the failed revision is left.
broken_and() {
  local good
  good=$(in_helm history "$release" --max 1 --output json | sed 's/.*"revision":\([0-9]*\).*/\1/')
  ! in_helm upgrade "$release" "$chart" --reset-then-reuse-values --wait --timeout 20s --set task-service.image.tag=withdrawn 2>/dev/null ||
    { echo "an upgrade to an image that does not exist succeeded" >&2; return 1; }
  case $1 in
    upgrade) changed task-service.image.tag=kind ;;
    rollback) in_helm rollback "$release" "$good" --wait --timeout 8m ;;
  esac
  old_pods_gone
  in_kubectl get jobs
  ! in_kubectl get jobs --output jsonpath='{.items[*].spec.template.spec.containers[*].image}' | grep --quiet withdrawn ||
    { echo "a Job of the withdrawn version is left" >&2; return 1; }
}

withdraw() {
  local failed=0
  under_load "a failed upgrade, repaired by an upgrade" broken_and upgrade
  under_load "a failed upgrade, withdrawn by a rollback" broken_and rollback
  return "$failed"
}

# PostgreSQL is gone for a minute. Calls fail meanwhile, but no pod restarts, and all are ready again within half a minute.
without_database() {
  local before
  before=$(restarts)
  in_kubectl scale "statefulset/$release-postgresql" --replicas 0
  sleep 60
  in_kubectl scale "statefulset/$release-postgresql" --replicas 1
  in_kubectl rollout status "statefulset/$release-postgresql" --timeout 3m
  local began=$SECONDS
  in_kubectl wait --for condition=Ready pod --selector 'app.kubernetes.io/name in (auth-service, task-service)' --timeout 30s
  echo "all pods were ready $((SECONDS - began)) s after PostgreSQL"
  [ "$(restarts)" = "$before" ] || { echo "a pod restarted" >&2; return 1; }
}
restarts() { in_kubectl get pods --selector app.kubernetes.io/part-of=task-manager --output jsonpath='{range .items[*]}{.metadata.name} {.status.containerStatuses[*].restartCount}{"\n"}{end}' | grep -v -e postgresql -e migrate | sort; }

outage() {
  .venv/bin/python -m tests.deploy.kind.load --url "$(url)" --report "$report" --name "PostgreSQL gone for a minute" --failures-expected -- \
    tests/deploy/kind/run.sh without_database
  smoke
}

# What an uninstall leaves: the generated Secrets and the volume. An install finds them again.
reinstall() {
  in_helm uninstall "$release" --wait --timeout 5m
  # The last pods drain for half a minute.
  old_pods_gone
  local left
  left=$(in_kubectl get all,configmaps,networkpolicies,serviceaccounts,poddisruptionbudgets,secrets,persistentvolumeclaims --output name |
    grep -v -e serviceaccount/default -e configmap/kube-root-ca.crt | sort | tr '\n' ' ')
  echo "left: $left"
  [ "$left" = "persistentvolumeclaim/data-$release-postgresql-0 secret/$release-database secret/$release-keys secret/$release-redis " ] || return 1
  install
  smoke
}

# Who can connect to whom: the pods of the release, and one that does not belong to it.
reach() {
  local image
  image=$(in_kubectl get "deployment/$release-task-service" --output jsonpath='{.spec.template.spec.containers[0].image}')
  in_kubectl run stranger --image "$image" --restart Never --override-type strategic --overrides '{"spec": {"automountServiceAccountToken": false,
    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}, "containers": [{"name": "stranger",
    "command": ["sleep", "600"], "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}}'
  in_kubectl wait --for condition=Ready pod/stranger --timeout 1m
  local status=0
  .venv/bin/python -m tests.deploy.kind.reach -- "${kubectl[@]}" | tee "$report/reach.md" || status=1
  in_kubectl delete pod stranger --wait=false
  return "$status"
}

# The output contains neither the data of Secrets nor the values of variables.
diagnose() {
  in_kubectl get pods,jobs,deployments,statefulsets,services,events --output wide >"$report/objects.txt" || true
  in_kubectl logs --selector "app.kubernetes.io/part-of=task-manager" --all-containers --prefix --tail 500 >"$report/logs.txt" || true
}

[ $# -gt 0 ] || set -- load_images install smoke reach upgrade roll evict withdraw outage reinstall
case $1 in
  scale | restart | evicted | killed | broken_and | without_database) "$@" ;;
  *) for step in "$@"; do echo "--- $step" && "$step"; done ;;
esac
