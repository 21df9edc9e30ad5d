# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# A step of the deploy test in which a host fetches its shard over HTTPS; sourced by run.sh.

FETCH_PORT=18443

SERVER_PROGRAM='
import http.server, ssl, sys
folder, address, port, certificate, key = sys.argv[1:]
def handler(*arguments):
    return http.server.SimpleHTTPRequestHandler(*arguments, directory=folder)
server = http.server.ThreadingHTTPServer((address, int(port)), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
'

# Serves a folder over TLS until SERVER is ended: FOLDER ADDRESS.
serve_folder() {
    local command=(python3 -c "$SERVER_PROGRAM" "$1" "$2" "$FETCH_PORT" "$WORK/web/gateway.pem" "$WORK/web/gateway-key.pem")
    # Not `near`: a function in the background runs in a shell, and ending that would leave the server.
    if [ "$ENGINES" = own ]; then
        nsenter --target "${ENGINE_INIT[alpha]}" --net "${command[@]}" &
    else
        "${command[@]}" &
    fi
    SERVER=$!
}

step_demo_fetch() {
    local address outcome
    address=$(on alpha docker network inspect --format '{{(index .IPAM.Config 0).Gateway}}' "$PROJECT-demo_front")
    near alpha "$SWITCHYARD" certs --out "$WORK/web" --host "$address" || return 1
    "$SWITCHYARD" shard "$ROOT/deploy/models/switch-mini" --out "$WORK/web-shards" --pools 2 || return 1
    serve_folder "$WORK/web-shards" "$address"
    # As in deploy/kubernetes/overlays/production: only its own volume is writable.
    on alpha docker run --detach --name "$PROJECT-fetching" --network "$PROJECT-demo_front" \
        --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
        --volume "$PROJECT-fetched:/var/lib/switchyard" --volume "$WORK/web/ca.pem:/ca.pem:ro" \
        --env "SWITCHYARD_SHARD=https://$address:$FETCH_PORT/pool-0" --env SWITCHYARD_FETCH_CA=/ca.pem \
        --env SWITCHYARD_SHARD_CACHE=/var/lib/switchyard/shards --env SWITCHYARD_LISTEN=0.0.0.0:7401 \
        --env SWITCHYARD_PLAINTEXT=true --health-interval 1s "$IMAGE" expert-host
    until_true 60 is_healthy "$PROJECT-fetching"
    outcome=$?
    # Without the server it restarts from its cache.
    kill "$SERVER"
    wait "$SERVER" 2>/dev/null
    SERVER=
    if [ "$outcome" -eq 0 ]; then
        on alpha docker restart "$PROJECT-fetching" && sleep 1 && until_true 60 is_healthy "$PROJECT-fetching"
        outcome=$?
    fi
    on alpha docker logs "$PROJECT-fetching"
    on alpha docker rm --force "$PROJECT-fetching"
    on alpha docker volume rm "$PROJECT-fetched"
    return "$outcome"
}
