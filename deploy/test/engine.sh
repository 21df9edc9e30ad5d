# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Container engines for the deploy test; sourced by run.sh.
#
# A running Docker engine with compose is used, and stands for both machines. Otherwise, on Debian as root, the test starts an
# engine of its own for each machine: dockerd in new mount, network and process namespaces. So this machine's network, firewall
# and mounts are untouched, and ending one process removes everything. It needs neither an init system nor a registry; images
# are in memory.
#
#   engines_prepare          finds or unpacks an engine; sets ENGINES to `given` or `own`
#   engine_up NAME           starts one
#   engines_join A B         gives each an address on a private link: address_of NAME
#   on NAME COMMAND...       runs docker and the like against one
#   near NAME COMMAND...     runs a program in the network that the engine publishes ports in
#   kill_container NAME ID   ends a container's process, as a fault would
#   engines_down

ENGINE_PROGRAMS=${ENGINE_PROGRAMS:-$ROOT/.build/deploy-test/engine}
declare -A ENGINE_INIT=()

engines_prepare() {
    if [ "${DEPLOY_TEST_ENGINE:-}" != own ] && docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then
        ENGINES=given
        return
    fi
    ENGINES=own
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "error: no Docker engine is running here, and one of the test's own needs root on Debian" >&2
        return 1
    fi
    local missing=() program
    for program in runc:runc iptables:iptables ip:iproute2 nsenter:util-linux; do
        command -v "${program%%:*}" >/dev/null 2>&1 || missing+=("${program##*:}")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
    [ -x "$ENGINE_PROGRAMS/usr/sbin/dockerd" ] || engine_unpack
    export PATH=$ENGINE_PROGRAMS/usr/sbin:$ENGINE_PROGRAMS/usr/bin:$PATH
    export DOCKER_CONFIG=$ENGINE_PROGRAMS/config
}

# Unpacks the engine from Debian packages without installing them. Debian 12 has no compose version 2, so they come from Debian
# 13, by a separate apt that checks the same signatures. All of them run on Debian 12 except runc, which comes from this
# release.
engine_unpack() {
    local apt=$WORK/apt mirror package
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v -e security -e updates | head -n 1)
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/packages" "$ENGINE_PROGRAMS.new"
    : > "$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$apt/sources.list"
    cat > "$apt/apt.conf" <<CONF
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Sandbox::User "root";
CONF
    (
        export APT_CONFIG=$apt/apt.conf
        cd "$apt/packages"
        apt-get update -qq
        apt-get download -qq docker.io docker-cli containerd docker-compose docker-buildx
    )
    for package in "$apt"/packages/*.deb; do dpkg-deb -x "$package" "$ENGINE_PROGRAMS.new"; done
    mkdir -p "$ENGINE_PROGRAMS.new/config"
    ln -s ../usr/libexec/docker/cli-plugins "$ENGINE_PROGRAMS.new/config/cli-plugins"
    rm -rf "$apt" "$ENGINE_PROGRAMS"
    mv "$ENGINE_PROGRAMS.new" "$ENGINE_PROGRAMS"
}

# The first process of an engine's namespaces. Like init, it waits for processes that dockerd leaves behind.
engine_main() {
    local home=$1 name=$2
    ip link set lo up
    mount -t tmpfs tmpfs /run
    mount -t tmpfs -o size="${DEPLOY_TEST_MEMORY:-4g}" tmpfs "$home/data"
    dockerd --data-root "$home/data" --exec-root /run/docker --pidfile /run/docker.pid --host "unix://$home/docker.sock" \
        --cgroup-parent "/switchyard-deploy-test-$name" &
    wait $!
}

engine_up() {
    local name=$1 home=$WORK/$1 outer
    [ "$ENGINES" = own ] || return 0
    mkdir -p "$home/data"
    export -f engine_main
    setsid unshare --mount --net --pid --fork --mount-proc --propagation private --kill-child \
        bash -c 'engine_main "$@"' engine "$home" "$name" </dev/null >"$home/log" 2>&1 &
    outer=$!
    for _ in $(seq 100); do
        if on "$name" docker info >/dev/null 2>&1; then
            ENGINE_INIT[$name]=$(cat "/proc/$outer/task/$outer/children")
            ENGINE_INIT[$name]=${ENGINE_INIT[$name]// /}
            return 0
        fi
        kill -0 "$outer" 2>/dev/null || break
        sleep 0.2
    done
    echo "error: dockerd did not come up; the end of $home/log:" >&2
    tail -n 5 "$home/log" >&2
    return 1
}

on() {
    local name=$1
    shift
    if [ "$ENGINES" = own ]; then
        DOCKER_HOST=unix://$WORK/$name/docker.sock "$@"
    else
        "$@"
    fi
}

near() {
    local name=$1
    shift
    if [ "$ENGINES" = own ]; then
        nsenter --target "${ENGINE_INIT[$name]}" --net "$@"
    else
        "$@"
    fi
}

# The test's own two engines are joined by a link between their networks, which this machine never sees.
engines_join() {
    [ "$ENGINES" = own ] || return 0
    ip link add "link-$1" netns "${ENGINE_INIT[$1]}" type veth peer name "link-$2" netns "${ENGINE_INIT[$2]}"
    near "$1" ip address add 10.93.0.1/30 dev "link-$1"
    near "$2" ip address add 10.93.0.2/30 dev "link-$2"
    near "$1" ip link set "link-$1" up
    near "$2" ip link set "link-$2" up
    ENGINE_FIRST=$1
}

# The address at which containers of the other engine reach an engine's published ports.
address_of() {
    if [ "$ENGINES" = given ]; then
        echo host-gateway
    elif [ "$1" = "$ENGINE_FIRST" ]; then
        echo 10.93.0.1
    else
        echo 10.93.0.2
    fi
}

# `docker kill` counts as an intended stop, after which no policy restarts the container; so kill the process itself.
kill_container() {
    local pid
    pid=$(on "$1" docker inspect --format '{{.State.Pid}}' "$2")
    # 0 if it is not running, and `kill 0` would end the test itself.
    [ "$pid" -gt 1 ] || return 1
    if [ "$ENGINES" = own ]; then
        nsenter --target "${ENGINE_INIT[$1]}" --pid --mount kill -KILL "$pid"
    else
        kill -KILL "$pid"
    fi
}

engines_down() {
    local name
    for name in "${!ENGINE_INIT[@]}"; do
        kill -KILL "${ENGINE_INIT[$name]}" 2>/dev/null || true
    done
    for name in "${!ENGINE_INIT[@]}"; do
        while kill -0 "${ENGINE_INIT[$name]}" 2>/dev/null; do sleep 0.1; done
        find /sys/fs/cgroup -depth -type d -path "*/switchyard-deploy-test-$name*" -exec rmdir {} \; 2>/dev/null || true
    done
    ENGINE_INIT=()
}
