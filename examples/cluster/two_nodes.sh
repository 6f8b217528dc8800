#!/usr/bin/env bash
# A Ray cluster of two nodes with token authentication, a search on it, and its end.
#   examples/cluster/two_nodes.sh [RUN_FILE]
# Both nodes are on this machine here. On two machines, run the lines of the head on one and those
# of the worker on the other, with the head's address, after copying the token file there.
set -euo pipefail

run_file=${1:-"$(dirname "$0")/search.yaml"}
host=${HEAD_HOST:-$(hostname -I | cut -d' ' -f1)}
port=${HEAD_PORT:-6379}

# The token: one file, readable by its owner alone, the same on every node. Nothing prints it.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
umask 077
ray get-auth-token --generate > /dev/null 2>&1

started=()
stop() {  # these processes alone: `ray stop` would end every Ray on the machine
    for pid in "${started[@]}"; do kill "$pid" 2> /dev/null || true; done
    wait
}
trap stop EXIT

# Head: on the first machine.
ray start --head --port="$port" --num-cpus=1 --include-dashboard=false --block > /dev/null &
started+=($!)
until (exec 3<> "/dev/tcp/$host/$port") 2> /dev/null; do sleep 1; done

# Worker: on every other machine.
ray start --address="$host:$port" --num-cpus=1 --block > /dev/null &
started+=($!)
until ray status --address="$host:$port" 2> /dev/null | grep "/2.0 CPU" > /dev/null; do sleep 1; done

# The driver: on any machine of the cluster.
bimix-tune search "$run_file" --address "$host:$port"
