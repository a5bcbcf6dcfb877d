#!/bin/sh
# Runs mosquitto until a signal ends it, and ./refresh every minute (INTERVAL, in seconds). Restarts mosquitto when a
# certificate was revoked, so that the revoked device is disconnected.
#
# With -d it returns as soon as devices can connect, and goes on in the background: see ./log, and end it with
# kill $(cat run.pid).
set -u
cd "$(dirname "$0")" || exit 1
PATH=$PATH:/usr/sbin:/usr/local/sbin
fail() {
    echo "run: $1" >&2
    exit 1
}
for program in mosquitto curl flock openssl; do
    command -v "$program" > /dev/null || fail "$program is missing: install it (Debian: apt-get install $program)"
done
[ -O . ] || fail "run it as the owner of $(pwd)"
grep -qxF -e "cafile $PWD/ca.pem" -e "cafile $(pwd -P)/ca.pem" mosquitto.conf ||
    fail "mosquitto.conf is for another folder: delete it, and write it again with --path $(pwd)"

# Held by mosquitto and the refresher, too: as long as one of them is left of an earlier run, there is no second one.
exec 8> .run.lock
flock -n 8 || fail "it runs already; end it with: kill $(cat run.pid .broker.pid 2> /dev/null | tr '\n' ' ')"

if [ "${1:-}" = -d ]; then
    : > log
    # The run in the background takes the lock.
    flock -u 8
    exec 8>&-
    nohup ./run > log 2>&1 < /dev/null &
    seconds=0
    until grep -q 'mosquitto version .* running' log; do
        seconds=$((seconds + 1))
        if [ "$seconds" -gt 30 ] || ! kill -0 $! 2> /dev/null; then
            cat log >&2
            exit 1
        fi
        sleep 1
    done
    echo "mosquitto runs in the background; end it with: kill $(cat run.pid)"
    exit 0
fi
echo $$ > run.pid

refresh() {
    ./refresh || echo "run: the revocation lists could not be refreshed; the next attempt follows in ${INTERVAL:-60} s" >&2
}

# Refreshes for as long as the run lives; mosquitto ends with it.
refresher() {
    trap 'kill "$pause" 2> /dev/null; exit 0' TERM
    while :; do
        sleep "${INTERVAL:-60}" > /dev/null 2>&1 8>&- &
        pause=$!
        wait "$pause"
        if ! kill -0 $$ 2> /dev/null; then
            kill "$(cat .broker.pid)"
            exit 1
        fi
        RESTART='touch .restart && kill "$(cat .broker.pid)"' refresh
    done
}

end() {
    trap - INT TERM
    kill "$broker" "$refresher" 2> /dev/null
    wait
    exit 0
}

broker= refresher=
trap end INT TERM
while :; do
    rm -f .restart mosquitto.pid
    ./refresh start
    mosquitto -c mosquitto.conf &
    broker=$!
    echo "$broker" > .broker.pid
    if [ -z "$refresher" ]; then
        refresher &
        refresher=$!
    fi
    wait "$broker"
    status=$?
    if [ ! -e .restart ]; then
        kill "$refresher" 2> /dev/null
        wait
        exit "$status"
    fi
done
