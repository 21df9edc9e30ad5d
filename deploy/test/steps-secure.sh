# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Steps of the deploy test with certificates: the demo, and a cluster on two machines; sourced by run.sh.

TOKEN=0123456789abcdef0123456789abcdef
APART_PORT=17410

secure() { demo --file "$ROOT/compose/tls.yaml" "$@"; }

# A folder that the containers' user may write to, as the instructions say.
step_tls_certs() {
    use_demo
    export SWITCHYARD_TOKEN=$TOKEN
    if [ "$(id -u)" -ne 0 ]; then
        NOTE="giving the folder to the containers' user needs root"
        return 1
    fi
    install -d -o 65532 -g 65532 "$WORK/certs"
    # The file must exist before the first project that names it.
    echo "me:sha256:$(printf %s "$TOKEN" | sha256sum | cut -d ' ' -f 1)" > "$WORK/certs/tokens"
    secure run --rm certs || return 1
    expect "$(stat -c '%a %u' "$WORK/certs/gateway-key.pem")" "600 65532"
}

step_tls_up() { secure up --detach --wait; }

# Checks a host of the secure demo from the gateway's network, with the credentials in the arguments.
ask_host() {
    on alpha docker run --rm --network "$PROJECT-demo_experts" --volume "$WORK/certs:/certs:ro" "$IMAGE" \
        health --endpoint pool-0:7401 --tls-ca /certs/ca.pem --tls-server-name experts "$@" 2>&1
}

step_tls_hosts() {
    expect "$(ask_host)" "takes only clients with a certificate" || return 1
    expect "$(ask_host --tls-certificate /certs/client.pem --tls-key /certs/client-key.pem)" \
        "is not among the allowed clients" || return 1
    expect "$(ask_host --tls-certificate /certs/gateway.pem --tls-key /certs/gateway-key.pem)" " SERVING" || return 1
    expect "$(secure logs pool-0 2>&1)" "a connection was refused"
}

step_tls_tokens() {
    expect "$(SWITCHYARD_TOKEN='' secure run --rm generate "$PROMPT" 2>&1)" "UNAUTHENTICATED" || return 1
    expect "$(SWITCHYARD_TOKEN=${TOKEN}0 secure run --rm generate "$PROMPT" 2>&1)" "UNAUTHENTICATED" || return 1
    answers secure run --rm generate --strict "$PROMPT" || return 1
    # From outside, by the name in the certificate.
    SWITCHYARD_TOKEN=$TOKEN answers ask --tls-ca "$WORK/certs/ca.pem" --tls-server-name gateway || return 1
    expect "$(ask --plaintext 2>&1)" "speaks TLS"
}

step_tls_clients() {
    GATEWAY_CLIENT_CA=/run/secrets/ca secure up --detach --wait || return 1
    expect "$(secure run --rm --no-deps generate "$PROMPT" 2>&1)" "takes only clients with a certificate" || return 1
    answers secure run --rm --no-deps generate-with-certificate --strict "$PROMPT"
}

step_tls_down() {
    secure --profile client --profile setup down --volumes || return 1
    nothing_left alpha "$PROJECT-demo"
}

# --- Two machines -----------------------------------------------------------------------------------------------------

# The hosts' machine is `beta`; the gateway's machine calls it experts-a.
experts() { on beta docker compose --ansi never --progress quiet --env-file /dev/null --project-name "$PROJECT-experts" \
        --file "$ROOT/compose/experts.yaml" "$@"; }
gateway() {
    on alpha docker compose --ansi never --progress quiet --env-file /dev/null --project-name "$PROJECT-gateway" \
        --file "$ROOT/compose/gateway.yaml" --file "$ROOT/deploy/test/experts-a.yaml" "$@"
}

use_apart() {
    use_demo
    export GATEWAY_PUBLISH=127.0.0.1:$APART_PORT GATEWAY_ADMIN_PUBLISH=127.0.0.1:17411 EXPERTS_A=$(address_of beta)
    export SWITCHYARD_POOL="pool-0=experts-a:17501,experts-a:17502,experts-a:17503;pool-1=experts-a:17511"
    export POOL_0_PUBLISH=17501-17503 POOL_1_PUBLISH=17511
    export HOST_TLS_CERTIFICATE=/certs/expert-host.pem HOST_TLS_KEY=/certs/expert-host-key.pem
    export HOST_TLS_CLIENT_CA=/certs/ca.pem
    export HOST_TLS_ALLOWED_CLIENTS=spiffe://switchyard/gateway,spiffe://switchyard/expert-host
    export GATEWAY_TLS_CA=/certs/ca.pem GATEWAY_TLS_CERTIFICATE=/certs/gateway.pem GATEWAY_TLS_KEY=/certs/gateway-key.pem
    export GATEWAY_TOKENS=/certs/tokens SWITCHYARD_TOKEN=$TOKEN
}

step_apart_up() {
    engine_up beta && engines_join alpha beta || return 1
    if [ "$ENGINES" = own ]; then
        on alpha docker save "$IMAGE" | on beta docker load --quiet || return 1
    fi
    use_apart
    install -d -o 65532 -g 65532 "$WORK/certs"
    on alpha docker run --rm --network none --volume "$WORK/certs:/certs" "$IMAGE" certs --out /certs --force \
        --host gateway --expert-host experts-a || return 1
    echo "me:sha256:$(printf %s "$TOKEN" | sha256sum | cut -d ' ' -f 1)" > "$WORK/certs/tokens"
    experts run --rm shard || return 1
    gateway run --rm shard || return 1
    experts up --detach --wait || return 1
    gateway up --detach --wait || { gateway logs; return 1; }
    NOTE="experts-a is $EXPERTS_A"
}

apart_status() {
    near alpha "$SWITCHYARD" status --endpoint "127.0.0.1:$APART_PORT" --tls-ca "$WORK/certs/ca.pem" \
        --tls-server-name gateway
}

step_apart_generate() {
    answers gateway run --rm generate --strict "$PROMPT" || return 1
    expect "$(apart_status)" "complete"
}

pool_0_has() { [ "$(apart_status | grep -c '^pool-0 .* ready ')" -eq "$1" ]; }

step_apart_scale() {
    experts up --detach --wait --no-recreate --scale pool-0=3 || return 1
    until_true 60 pool_0_has 3 || { apart_status; return 1; }
    answers gateway run --rm generate --strict "$PROMPT"
}

step_apart_down() {
    gateway --profile setup --profile client down --volumes && experts --profile setup down --volumes || return 1
    nothing_left alpha "$PROJECT-gateway" && nothing_left beta "$PROJECT-experts"
}
