#!/bin/sh
# Checks, before anything is compiled, that the programs which a make target needs are installed: prerequisites.sh run|local|test.
# What "test" needs beyond Rust, a C compiler and Python is installed on Debian (by root, or with sudo); elsewhere, it is listed.
set -u
target=$1
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing= # What is missing, one line each.
packages= # The packages of Debian that have it.
by_hand=  # Whether some of it is in no package of Debian, or in one that is too old.

has() { command -v "$1" > /dev/null 2>&1; }

lacks() { # WHAT PACKAGES
    missing="$missing  $1
"
    packages="$packages${2:+ $2}"
    [ -n "$2" ] || by_hand=yes
}

has cargo || lacks "Rust: cargo and rustc, by https://rustup.rs" ""
has cc || lacks "a C compiler: cc" "gcc libc6-dev"
if [ "$target" != run ]; then
    if has python3 && python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        python3 -c 'import ensurepip, venv' 2> /dev/null || lacks "Python's venv" "python3-venv"
    else
        lacks "Python 3.11 or later: python3" "python3 python3-venv"
    fi
fi
if [ "$target" = test ]; then
    has cfssl || lacks "cfssl, which the server is measured beside" golang-cfssl
    has curl || lacks curl curl
    has haproxy || lacks haproxy haproxy
    has jq || lacks jq jq
    has mariadbd || lacks "MariaDB's server: mariadbd" mariadb-server
    has mosquitto || lacks mosquitto mosquitto
    has mosquitto_pub || lacks "mosquitto's clients: mosquitto_pub" mosquitto-clients
    has nats-server || lacks nats-server nats-server
    has nginx || lacks nginx nginx
    [ -n "$(find /usr/lib*/nginx /usr/local -name 'ngx_stream_js_module.so' -print -quit 2> /dev/null)" ] ||
        lacks "nginx's modules stream and stream-js" "libnginx-mod-stream libnginx-mod-stream-js"
    if ! has npm || ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2> /dev/null; then
        lacks "Node 20 or later, with npm: https://nodejs.org" ""
    fi
    has openssl || lacks openssl openssl
    has pki || lacks "strongSwan's pki" "strongswan-pki libstrongswan-standard-plugins"
    has ps || lacks ps procps
    has rabbitmq-server || lacks rabbitmq-server rabbitmq-server
    has wrk || lacks "wrk, which measures the server" wrk
    [ -n "$(find /usr/lib /usr/local/lib -name 'libfaketimeMT.so*' -print -quit 2> /dev/null)" ] ||
        lacks "libfaketime (libfaketimeMT.so.1)" libfaketime
fi

[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then as_root=sudo; fi
if [ "$target" = test ] && [ -z "$by_hand" ] && has apt-get && { [ -z "$as_root" ] || sudo -n true 2> /dev/null; }; then
    printf 'Installing what the tests need:\n%s' "$missing"
    # $packages is a list of words.
    $as_root apt-get update -q && $as_root apt-get install -qy --no-install-recommends $packages
    exit
fi

printf '"make %s" needs what is not installed here:\n%s' "$target" "$missing" >&2
if [ -n "$packages" ] && has apt-get; then
    echo "On Debian: ${as_root:+sudo }apt-get install$packages" >&2
fi
exit 1
