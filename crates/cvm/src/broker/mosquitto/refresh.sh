#!/bin/sh
# Fetches the CAs and the revocation lists, and makes mosquitto read what is new: the broker's certificate, too. Run it
# every minute, as the owner of this folder: a list is valid for a day, and mosquitto refuses every device without a valid one.
#
# mosquitto looks at the lists when a device connects, so a session that is open stays open. RESTART, if set, is the command
# that restarts mosquitto. It runs when a list has entries that mosquitto was not started with: every device connects again,
# except the revoked ones.
#
# "refresh start" is for right before mosquitto starts: it fetches what it can, and notes with which entries mosquitto starts.
#
# Needs curl, flock and openssl. Exits with 0 if mosquitto has what is new.
set -eu
cd "$(dirname "$0")"
[ -O . ] || { echo "refresh: run it as the owner of $(pwd)" >&2; exit 1; }
server=${CVM_SERVER:-'@SERVER@'}
# The root by which the server is verified, if that is not the private CA's.
root=root.pem
if [ -e server-ca.pem ]; then root=server-ca.pem; fi

# One run at a time.
exec 9> .lock
flock 9

# Runs a command over each PEM block of a file with this label, and fails if there is none, or the command fails for one.
each() { # FILE LABEL COMMAND
    awk -v begin="-----BEGIN $2-----" -v end="-----END $2-----" -v run="$3" '
        $0 == begin { block = ""; inside = 1 }
        inside { block = block $0 "\n" }
        $0 == end { print block | run; if (close(run) != 0) failed = 1; inside = 0; blocks++ }
        END { exit failed || inside || !blocks }' "$1"
}

# Downloads a file and puts it in its place, if each block of it can be read.
fetch() { # FILE LABEL COMMAND
    curl -fsS --max-time 60 --cacert "$root" -o "$1.new" "${server%/}/$1" || return 1
    each "$1.new" "$2" "$3" || { echo "refresh: $server/$1 cannot be read; $1 stays as it is" >&2; return 1; }
    cmp -s "$1" "$1.new" || mv "$1.new" "$1"
    rm -f "$1.new"
}

# The serial numbers of revoked certificates.
serials() {
    each crl.pem "X509 CRL" "openssl crl -noout -text" | sed -n 's/^ *Serial Number: *//p' | sort
}

# The process id of mosquitto. Process ids are used again, so its name is looked at.
mosquitto_pid() {
    pid=$(cat mosquitto.pid 2> /dev/null) && [ -n "$pid" ] || return 1
    [ "$(cat "/proc/$pid/comm" 2> /dev/null || ps -o comm= -p "$pid")" = mosquitto ] && echo "$pid"
}

fetch_all() {
    fetch ca.pem CERTIFICATE "openssl x509 -noout" && fetch crl.pem "X509 CRL" "openssl crl -noout"
}

# .enforced has the serial numbers that mosquitto was started with.
if [ "${1:-}" = start ]; then
    fetch_all || echo "refresh: mosquitto starts with the files that are here" >&2
    serials > .enforced
    touch .loaded
    exit 0
fi
fetch_all
serials > .revoked
touch -a .enforced
if [ -n "${RESTART:-}" ] && [ -n "$(comm -13 .enforced .revoked)" ]; then
    echo "restarting mosquitto; newly revoked certificates: $(comm -13 .enforced .revoked | wc -l)"
    eval "$RESTART"
    mv .revoked .enforced
    touch .loaded
elif [ ! -e .loaded ] || [ -n "$(find ca.pem crl.pem server.pem -newer .loaded)" ]; then
    pid=$(mosquitto_pid) || { echo "refresh: mosquitto does not run, or has no mosquitto.pid here" >&2; exit 1; }
    touch .loading
    kill -HUP "$pid"
    mv .loading .loaded
fi
