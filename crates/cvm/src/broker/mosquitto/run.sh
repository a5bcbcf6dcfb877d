#!/bin/sh
# Runs mosquitto until a signal ends it, and ./refresh every minute (INTERVAL, in seconds). Restarts mosquitto when a
# certificate was revoked, so that the revoked device is disconnected.
#
# With -d it returns as soon as devices can connect, and goes on in the background: see ./log, and end it with
# kill $(cat run.pid).
set -u
cd "$(dirname "$0")" || exit 1
PATH=$PATH:/usr/sbin:/usr/local/sbin
for program in mosquitto curl openssl; do
    command -v "$program" > /dev/null || { echo "$program is missing: install it (Debian: apt-get install $program)" >&2; exit 1; }
done

if [ "${1:-}" = -d ]; then
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
    ./refresh || echo "the revocation lists could not be refreshed; the next attempt follows in ${INTERVAL:-60} s" >&2
}

end() {
    trap - INT TERM
    kill "$broker" "$refresher" 2> /dev/null
    wait "$broker"
    exit 0
}

rm -f .restart mosquitto.pid
refresh
RESTART='touch .restart && kill "$(mosquitto_pid)"'
export RESTART
while sleep "${INTERVAL:-60}" > /dev/null 2>&1; do refresh; done &
refresher=$!
broker=
trap end INT TERM
while :; do
    rm -f .restart mosquitto.pid
    mosquitto -c mosquitto.conf &
    broker=$!
    wait "$broker"
    status=$?
    if [ ! -e .restart ]; then
        kill "$refresher"
        exit "$status"
    fi
done
