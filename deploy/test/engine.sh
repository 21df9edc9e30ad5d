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
#   engine_up NAME           starts one, unless it is up
#   engine_lose NAME         ends one at once, with all its containers, as a machine that loses power
#   engines_join NAME...     gives each an address on a private network: address_of NAME
#   on NAME COMMAND...       runs docker and the like against one
#   near NAME COMMAND...     runs a program in the network that the engine publishes ports in
#   kill_container NAME ID   ends a container's process, as a fault would
#   engines_down

ENGINE_PROGRAMS=${ENGINE_PROGRAMS:-$ROOT/.build/deploy-test/engine}
declare -A ENGINE_INIT=() ENGINE_ADDRESS=()
ENGINE_SWITCH=

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
    "$ROOT/deploy/install-packages.sh" deploy || return 1
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
    echo "$name" > /proc/sys/kernel/hostname
    ip link set lo up
    mount -t tmpfs tmpfs /run
    mount -t tmpfs -o size="${DEPLOY_TEST_MEMORY:-4g}" tmpfs "$home/data"
    dockerd --data-root "$home/data" --exec-root /run/docker --pidfile /run/docker.pid --host "unix://$home/docker.sock" \
        --cgroup-parent "/switchyard-deploy-test-$name" &
    wait $!
}

engine_up() {
    local name=$1 home=$WORK/$1 outer
    [ "$ENGINES" = own ] && [ -z "${ENGINE_INIT[$name]:-}" ] || return 0
    mkdir -p "$home/data"
    export -f engine_main
    setsid unshare --mount --net --uts --pid --fork --mount-proc --propagation private --kill-child \
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

# The test's own engines are joined by a bridge in a network of its own, which this machine never sees. Not in one of the engines':
# its firewall would see what the others send to each other.
engines_join() {
    local name number
    [ "$ENGINES" = own ] || return 0
    if [ -z "$ENGINE_SWITCH" ]; then
        # shellcheck disable=SC2016 # expanded inside
        setsid unshare --net sh -c 'ip link add machines type bridge && ip link set machines up && echo up > "$1" && exec sleep infinity' \
            switch "$WORK/switch" </dev/null &
        ENGINE_SWITCH=$!
        until_true 10 test -s "$WORK/switch" || return 1
    fi
    for name in "$@"; do
        [ -z "${ENGINE_ADDRESS[$name]:-}" ] || continue
        number=$((${#ENGINE_ADDRESS[@]} + 1))
        ip link add "to-$name" netns "$ENGINE_SWITCH" type veth peer name machines netns "${ENGINE_INIT[$name]}" &&
            nsenter --target "$ENGINE_SWITCH" --net ip link set "to-$name" master machines up &&
            near "$name" ip address add "10.93.0.$number/24" dev machines &&
            near "$name" ip link set machines up || return 1
        ENGINE_ADDRESS[$name]=10.93.0.$number
    done
}

# The address at which containers of the other engine reach an engine's published ports.
address_of() {
    if [ "$ENGINES" = given ]; then echo host-gateway; else echo "${ENGINE_ADDRESS[$1]}"; fi
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

engine_lose() {
    local name=$1 init=${ENGINE_INIT[$1]}
    unset "ENGINE_INIT[$name]"
    kill -KILL "$init" 2>/dev/null || true
    while kill -0 "$init" 2>/dev/null; do sleep 0.1; done
    find /sys/fs/cgroup -depth -type d -path "*/switchyard-deploy-test-$name*" -exec rmdir {} \; 2>/dev/null || true
}

engines_down() {
    local name
    # All at once first: they end beside each other.
    for name in "${!ENGINE_INIT[@]}"; do kill -KILL "${ENGINE_INIT[$name]}" 2>/dev/null || true; done
    for name in "${!ENGINE_INIT[@]}"; do engine_lose "$name"; done
    [ -z "$ENGINE_SWITCH" ] || kill "$ENGINE_SWITCH" 2>/dev/null || true
    ENGINE_SWITCH=
}
