# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Steps of the deploy test with `podman kube play`, which runs the pods of Kubernetes' manifests without Kubernetes; sourced by
# run.sh. podman has namespaces of its own, as the engines do, with images in memory.

KUBE_INIT=
KUBE_FILE=$WORK/kube.yaml
KUBE_IMAGE=localhost/switchyard-demo:latest

# The first process of podman's namespaces: it waits for processes that podman leaves behind.
kube_main() {
    ip link set lo up
    mount -t tmpfs tmpfs /run
    mount -t tmpfs -o size="${DEPLOY_TEST_MEMORY:-4g}" tmpfs "$1/storage"
    mkdir /run/lock
    echo up > "$1/up"
    sleep infinity &
    wait $!
}

kube_begin() {
    local home=$WORK/kube outer
    mkdir -p "$home/storage" "$home/networks"
    cat > "$home/containers.conf" <<CONF
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
network_config_dir = "$home/networks"
CONF
    cat > "$home/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$home/storage/root"
runroot = "/run/containers/storage"
CONF
    export -f kube_main
    setsid unshare --mount --net --uts --pid --fork --mount-proc --propagation private --kill-child \
        bash -c 'kube_main "$@"' kube "$home" </dev/null >"$home/log" 2>&1 &
    outer=$!
    until_true 10 test -s "$home/up" || return 1
    KUBE_INIT=$(cat "/proc/$outer/task/$outer/children")
    KUBE_INIT=${KUBE_INIT// /}
}

kube_end() {
    [ -n "$KUBE_INIT" ] || return 0
    kill -KILL "$KUBE_INIT" 2>/dev/null || true
    while kill -0 "$KUBE_INIT" 2>/dev/null; do sleep 0.1; done
    find /sys/fs/cgroup -depth -type d -path "*/libpod_parent*" -exec rmdir {} \; 2>/dev/null || true
    KUBE_INIT=
}

in_kube() {
    # podman would look for Docker's registries.
    env --unset=DOCKER_CONFIG CONTAINERS_CONF="$WORK/kube/containers.conf" CONTAINERS_STORAGE_CONF="$WORK/kube/storage.conf" \
        nsenter --target "$KUBE_INIT" --mount --net --uts --pid --wdns="$WORK" "$@"
}

kube_ask() { in_kube timeout 60 "$SWITCHYARD" generate --plaintext --endpoint 127.0.0.1:7400 --strict "$PROMPT"; }
kube_answers() { SWITCHYARD_TOKEN=demo-token answers kube_ask; }

# How many documents of each kind there are in the manifests.
kube_kinds() { awk '$1 == "kind:" && /^kind/ { print $2 }' "$KUBE_FILE" | sort | uniq -c | awk -v kinds="$1" 'index(kinds, " " $2 " ") { printf "%s%d %s", n++ ? ", " : "", $1, $2 }'; }

step_kube_up() {
    local overlay=$ROOT/deploy/kubernetes/overlays/podman
    if [ "$(id -u)" -ne 0 ] || ! command -v podman >/dev/null; then
        NOTE="needs root, and the Debian package podman"
        return 77
    fi
    if command -v kubectl >/dev/null; then
        kubectl kustomize "$overlay" > "$KUBE_FILE" || return 1
    elif command -v kustomize >/dev/null; then
        kustomize build "$overlay" > "$KUBE_FILE" || return 1
    else
        NOTE="needs kubectl or kustomize"
        return 77
    fi
    kube_begin || return 1
    in_kube podman build --quiet --format docker --isolation chroot --file "$ROOT/deploy/Containerfile" --target demo \
        --build-arg BINARY=prebuilt --tag "$KUBE_IMAGE" "$ROOT" || return 1
    in_kube podman network create switchyard && in_kube podman kube play --network switchyard "$KUBE_FILE" || return 1
    until_true 90 kube_answers || { in_kube podman ps --all; in_kube podman logs gateway-pod-0-gateway; return 1; }
    NOTE="podman $(podman --version | awk '{ print $NF }'): $(kube_kinds ' Deployment ConfigMap '); it knows no Services and plays none of"
    NOTE+=" $(kube_kinds ' Service NetworkPolicy PodDisruptionBudget Namespace ')"
}

step_kube_generate() {
    kube_answers || return 1
    expect "$(SWITCHYARD_TOKEN='' kube_ask 2>&1)" UNAUTHENTICATED || return 1
    expect "$(SWITCHYARD_TOKEN=other-token kube_ask 2>&1)" UNAUTHENTICATED || return 1
    expect "$(in_kube podman exec gateway-pod-0-gateway /usr/bin/switchyard health 2>&1)" SERVING
}

kube_started() { in_kube podman inspect --format '{{.State.Status}} {{.State.Pid}}' pool-0-pod-0-expert-host; }
kube_restarted() { case $(kube_started) in "$1" | *" 0") return 1 ;; "running "*) return 0 ;; *) return 1 ;; esac; }

step_kube_kill() {
    local before
    before=$(kube_started)
    [ "${before##* }" -gt 1 ] || return 1
    in_kube kill -KILL "${before##* }" && until_true 60 kube_restarted "$before" && until_true 60 kube_answers
}

step_kube_down() {
    in_kube podman kube down "$KUBE_FILE" || return 1
    local left
    left=$(in_kube podman ps --all --quiet; in_kube podman pod ps --quiet)
    [ -z "$left" ] || { echo "left: $left"; return 1; }
    kube_end
}
