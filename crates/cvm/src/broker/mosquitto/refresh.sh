#!/bin/sh
# Fetches the CAs and the revocation lists, and makes mosquitto read what is new: the broker's certificate, too. Run it
# every minute: a list is valid for a day, and mosquitto refuses every device without a valid one.
#
# mosquitto looks at the lists when a device connects, so a session that is open stays open. RESTART, if set, is the command
# that restarts mosquitto. It runs when a list has a new entry: every device connects again, except the revoked ones.
#
# Needs curl and openssl. Exits with 0 if the lists are up to date.
set -eu
cd "$(dirname "$0")"
server=${CVM_SERVER:-'@SERVER@'}

# One run at a time, where flock is installed.
exec 9> .lock
if command -v flock > /dev/null; then flock 9; fi

# Downloads a file to FILE.new, unless it is the same as FILE.
fetch() {
    curl -fsS --max-time 60 --cacert root.pem -o "$1.new" "$server/$1"
    # mosquitto stops if it reads a file that is no PEM.
    grep -q -e '^-----END ' "$1.new"
    if cmp -s "$1" "$1.new"; then rm "$1.new"; fi
}

# The serial numbers in a file of revocation lists; openssl reads one list at a time.
serials() {
    awk '/BEGIN X509 CRL/ { list = "" }
         { list = list $0 "\n" }
         /END X509 CRL/ { print list | "openssl crl -noout -text"; close("openssl crl -noout -text") }' "$1" |
        sed -n 's/^ *Serial Number: *//p' | sort
}

# Puts FILE.new in the place of FILE, with the same mode and owner.
replace() {
    if [ -e "$1.new" ]; then
        chmod --reference="$1" "$1.new" 2> /dev/null || true
        chown --reference="$1" "$1.new" 2> /dev/null || true
        mv "$1.new" "$1"
    fi
}

# The process id of mosquitto; fails if it does not run. Process ids are used again, so its name is looked at.
mosquitto_pid() {
    [ -s mosquitto.pid ] || return 1
    pid=$(cat mosquitto.pid)
    [ "$(cat "/proc/$pid/comm" 2> /dev/null || ps -o comm= -p "$pid")" = mosquitto ] && echo "$pid"
}

fetch ca.pem
fetch crl.pem
revoked=
if [ -e crl.pem.new ]; then
    serials crl.pem > .revoked.before
    serials crl.pem.new > .revoked
    revoked=$(comm -13 .revoked.before .revoked)
fi
replace ca.pem
replace crl.pem

if [ -n "$revoked" ] && [ -n "${RESTART:-}" ]; then
    echo "restarting mosquitto: $(echo "$revoked" | wc -l) more certificates are revoked"
    touch .loaded
    eval "$RESTART"
elif [ ! -e .loaded ] || [ -n "$(find ca.pem crl.pem server.pem -newer .loaded)" ]; then
    touch .loaded
    if pid=$(mosquitto_pid); then kill -HUP "$pid"; fi
fi
