# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Steps of the deploy test on a Docker Swarm of three machines; sourced by run.sh.
#
# Clients connect to the gateways of two machines, and turn to the second where the first one does not answer. The third machine,
# which is lost, has expert hosts alone.

SWARM=$PROJECT-swarm
SWARM_PORT=17420
SWARM_IMAGE=switchyard-demo:deploy-test
SWARM_MACHINES="alpha beta gamma"
SWARM_GATEWAYS="alpha beta"

use_swarm() {
    use_demo
    export SWITCHYARD_IMAGE=$SWARM_IMAGE GATEWAY_PORT=$SWARM_PORT SWITCHYARD_CERTS=$WORK/swarm-certs SWITCHYARD_TOKEN=$TOKEN
    export HOST_MEMORY=512m GATEWAY_MEMORY=512m POOL_0_REPLICAS=1 POOL_1_REPLICAS=1 CERTS_VERSION=1
}

# The stack's services all as they should be; progress for the log.
stack_deploy() {
    on alpha docker stack deploy --resolve-image never --detach=false --quiet --prune --compose-file "$ROOT/compose/stack.yaml" \
        --compose-file "$ROOT/compose/stack-demo.yaml" "$SWARM"
}

swarm_certs() {
    "$SWITCHYARD" certs --out "$SWITCHYARD_CERTS" --host gateway --expert-host experts "$@" &&
        echo "me:sha256:$(printf %s "$TOKEN" | sha256sum | cut -d ' ' -f 1)" > "$SWITCHYARD_CERTS/tokens"
}

# What the engines' kernel cannot do; empty if it can do all.
swarm_lacks() {
    near alpha ip link add name lacks-vxlan type vxlan id 1 dstport 4790 2>/dev/null || { echo "this kernel has no vxlan"; return; }
    near alpha ip link delete lacks-vxlan
}

step_swarm_up() {
    local machine token
    if [ "$ENGINES" != own ]; then
        NOTE="needs engines of its own, as root with DEPLOY_TEST_ENGINE=own"
        return 77
    fi
    NOTE=$(swarm_lacks)
    [ -z "$NOTE" ] || return 77
    use_swarm
    for machine in $SWARM_MACHINES; do engine_up "$machine" || return 1; done
    # shellcheck disable=SC2086 # a list
    engines_join $SWARM_MACHINES || return 1
    on alpha docker build --quiet --file "$ROOT/deploy/Containerfile" --target demo --tag "$SWARM_IMAGE" \
        --build-arg BINARY=prebuilt "$ROOT" && on alpha docker tag "$SWARM_IMAGE" "$SWARM_IMAGE-next" || return 1
    on alpha docker save "$SWARM_IMAGE" "$SWARM_IMAGE-next" > "$WORK/swarm-image.tar" || return 1
    for machine in beta gamma; do on "$machine" docker load --quiet --input "$WORK/swarm-image.tar" || return 1; done
    rm "$WORK/swarm-image.tar"
    on alpha docker swarm init --advertise-addr "$(address_of alpha)" --listen-addr "$(address_of alpha):2377" || return 1
    token=$(on alpha docker swarm join-token --quiet worker)
    for machine in beta gamma; do
        on "$machine" docker swarm join --advertise-addr "$(address_of "$machine")" --token "$token" \
            "$(address_of alpha):2377" || return 1
    done
    for machine in $SWARM_GATEWAYS; do
        on alpha docker node update --label-add switchyard.gateway=true "$machine" || return 1
    done
    swarm_certs || return 1
    stack_deploy || { on alpha docker stack ps "$SWARM"; return 1; }
    for machine in $SWARM_GATEWAYS; do until_true 60 swarm_has "$machine" pool-0 1 || return 1; done
    NOTE="overlay network over vxlan; $(on alpha docker stack services --format '{{.Name}} {{.Replicas}}' "$SWARM" |
        sed "s/^$SWARM""_//" | sort | paste -s -d ';' | sed 's/;/; /g')"
}

# Asks the gateway of one machine.
swarm_call() { # MACHINE COMMAND ARGUMENT...
    local machine=$1 command=$2
    shift 2
    near alpha timeout 60 "$SWITCHYARD" "$command" --endpoint "$(address_of "$machine"):$SWARM_PORT" \
        --tls-ca "$SWITCHYARD_CERTS/ca.pem" --tls-server-name gateway "$@"
}

swarm_ask() { swarm_call "$1" generate --strict "$PROMPT"; }

# As a client with two addresses: a gateway that is not there, or that drains, is no failure while the other one answers.
swarm_ask_any() {
    local machine errors=$WORK/swarm.errors.$BASHPID
    for machine in $SWARM_GATEWAYS; do
        swarm_ask "$machine" 2>"$errors" && return 0
        sed "s/^/$machine: /" "$errors" >&2
        grep -q UNAVAILABLE "$errors" || return 1
        echo "$machine" >> "$WORK/swarm.turned"
    done
    return 1
}

swarm_replicas() { swarm_call "$1" status | grep -c "^$2 .* ready "; }
swarm_has() { [ "$(swarm_replicas "$1" "$2")" -eq "$3" ]; }

# How often clients turned to the other gateway.
swarm_turned() { cat "$WORK/swarm.turned" 2>/dev/null | wc -l; }

step_swarm_generate() {
    local machine
    for machine in $SWARM_GATEWAYS; do answers swarm_ask "$machine" || return 1; done
    expect "$(SWITCHYARD_TOKEN='' swarm_ask alpha 2>&1)" UNAUTHENTICATED || return 1
    expect "$(near alpha timeout 60 "$SWITCHYARD" generate --plaintext --endpoint "$(address_of alpha):$SWARM_PORT" "$PROMPT" 2>&1)" \
        "speaks TLS" || return 1
    # Keys and tokens are where they are needed, readable by that user alone.
    expect "$(on alpha docker service inspect --format '{{json .Spec.TaskTemplate.ContainerSpec.Secrets}}' "${SWARM}_pool-0")" \
        '"UID":"65532","GID":"65532","Mode":256' || return 1
    case $(on alpha docker service inspect "${SWARM}_pool-0") in *gateway-key* | *tokens*) return 1 ;; esac
}

# Its progress would fill the log.
swarm_scale() { on alpha docker service scale "${SWARM}_$1=$2" >/dev/null; }

# Ends the load and judges it: at least this many requests, no failure.
swarm_load_end() {
    load_end
    cat "$WORK/load.errors"
    NOTE="$GOOD requests, $BAD failures${NOTE:+; $NOTE}"
    [ "$GOOD" -ge "$1" ] && [ "$BAD" -eq 0 ]
}

step_swarm_scale() {
    local outcome=1
    rm -f "$WORK/swarm.turned"
    load_begin swarm_ask_any
    swarm_scale pool-0 3 && until_true 60 swarm_has alpha pool-0 3 && sleep 3 &&
        swarm_call alpha status && on alpha docker service ps "${SWARM}_pool-0" &&
        swarm_scale pool-0 1 && until_true 60 swarm_has alpha pool-0 1
    outcome=$?
    # No gateway was touched.
    swarm_load_end 20 && [ "$outcome" -eq 0 ] && [ "$(swarm_turned)" -eq 0 ]
}

# Every service runs the image, and none went back.
swarm_runs() {
    local service
    for service in pool-0 pool-1 gateway; do
        expect "$(on alpha docker service inspect --format '{{.Spec.TaskTemplate.ContainerSpec.Image}} {{.UpdateStatus.State}}' \
            "${SWARM}_$service")" "$1 completed" || return 1
    done
}

# One deployment replaces every container: another image, and other certificates of the same authority.
step_swarm_update() {
    local outcome=1 before
    rm -f "$WORK/swarm.turned"
    before=$(swarm_shown alpha)
    load_begin swarm_ask_any
    export SWITCHYARD_IMAGE=$SWARM_IMAGE-next CERTS_VERSION=2
    swarm_certs --force && stack_deploy && until_true 120 swarm_runs "$SWARM_IMAGE-next" && until_true 60 swarm_has alpha pool-0 1 &&
        until_true 60 swarm_has beta pool-0 1
    outcome=$?
    on alpha docker stack ps "$SWARM"
    NOTE="clients turned to the other gateway $(swarm_turned) times"
    swarm_load_end 20 && [ "$outcome" -eq 0 ] && [ "$before" != "$(swarm_shown alpha)" ] && answers swarm_ask beta
}

# The serial number of the certificate that a gateway shows.
swarm_shown() {
    near alpha timeout 10 openssl s_client -connect "$(address_of "$1"):$SWARM_PORT" </dev/null 2>/dev/null | openssl x509 -noout -serial
}

is_down() { [ "$(on alpha docker node ls --filter "name=$1" --format '{{.Status}}')" = Down ]; }

# Gateways lose the hosts of a machine while calls are on their way; the swarm starts others elsewhere.
step_swarm_node() {
    local outcome=1 began
    rm -f "$WORK/swarm.turned"
    swarm_scale pool-0 3 && swarm_scale pool-1 3 && until_true 60 swarm_has alpha pool-0 3 && until_true 60 swarm_has alpha pool-1 3 ||
        return 1
    expect "$(on alpha docker node ps --filter desired-state=running --format '{{.Name}}' gamma | sort | paste -s -d ' ')" \
        "${SWARM}_pool-0" || return 1
    load_begin swarm_ask_any
    sleep 2
    began=$(date +%s%N)
    engine_lose gamma
    until_true 60 swarm_has alpha pool-0 2 && until_true 60 is_down gamma &&
        until_true 90 swarm_has alpha pool-0 3 && until_true 90 swarm_has alpha pool-1 3
    outcome=$?
    NOTE=$(awk -v from="$began" -v to="$(date +%s%N)" 'BEGIN { printf "its hosts run elsewhere after %.0f s", (to - from) / 1e9 }')
    on alpha docker node ls
    on alpha docker stack ps "$SWARM"
    swarm_load_end 20 && [ "$outcome" -eq 0 ] && [ "$(swarm_turned)" -eq 0 ] && answers swarm_ask beta
}

step_swarm_down() {
    # Not --detach=false, which may wait for tasks of the lost machine for ever.
    on alpha docker stack rm "$SWARM" || return 1
    swarm_left() {
        on alpha docker service ls --quiet
        on alpha docker ps --all --quiet --filter "label=com.docker.stack.namespace=$SWARM"
        on alpha docker network ls --quiet --filter "label=com.docker.stack.namespace=$SWARM"
        # Of the first version too: a new deployment leaves them.
        on alpha docker secret ls --quiet --filter "name=-2"
        on alpha docker config ls --quiet --filter "name=-2"
    }
    nothing_of_swarm() { [ -z "$(swarm_left)" ]; }
    until_true 120 nothing_of_swarm || { swarm_left; return 1; }
    on beta docker swarm leave && on alpha docker swarm leave --force && engine_lose beta
}
