# Sourced by quickstart and run-tests: installs what is missing. Works as root or through sudo.

top=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
venv=$top/.venv
guest=${KVMDRIVER_GUEST:-/var/tmp/kvmdriver-guest}

step() { printf '\n== %s\n' "$*"; }

if [ "$(id -u)" = 0 ]; then
    as_root() { "$@"; }
elif command -v sudo >/dev/null; then
    as_root() { sudo --preserve-env=OS_KVM__VIRT_TYPE "$@"; }
else
    echo "this needs root, or sudo" >&2
    exit 1
fi

# The packages of bindep.txt for this kind of system: those without a platform, or with ours.
packages() { # dpkg|rpm
    sed -e 's/#.*//' "$top/bindep.txt" | awk -v ours="platform:$1" '
        NF && (!/platform:/ || index($0, ours)) {print $1}'
}

install_packages() {
    local missing=() package
    if command -v apt-get >/dev/null; then
        for package in $(packages dpkg); do
            dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
                missing+=("$package")
        done
        [ ${#missing[@]} = 0 ] && return
        step "installing ${missing[*]}"
        as_root apt-get update -qq
        # Services are not started by their packages: whoever needs one starts it.
        as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
            apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    elif command -v dnf >/dev/null; then
        for package in $(packages rpm); do
            rpm -q --quiet "$package" || missing+=("$package")
        done
        [ ${#missing[@]} = 0 ] && return
        step "installing ${missing[*]}"
        as_root dnf install -y -q "${missing[@]}"
    else
        echo "neither apt-get nor dnf is here: install the packages of bindep.txt by hand" >&2
        exit 1
    fi
}

# The system's Python: libosinfo's bindings (python3-gi) belong to it.
install_python() { # requirements files
    local stamp arguments=() file
    stamp=$(cat "$top/setup.cfg" "$@" | sha256sum)
    [ "$(cat "$venv/stamp" 2>/dev/null)" = "$stamp" ] && return
    step "installing Python packages into .venv"
    [ -x "$venv/bin/python" ] || /usr/bin/python3 -m venv --system-site-packages "$venv"
    for file in "$@"; do arguments+=(-r "$file"); done
    "$venv/bin/pip" install -qq --disable-pip-version-check "${arguments[@]}" pbr setuptools wheel
    # without isolation: what the build needs is there already
    "$venv/bin/pip" install -qq --disable-pip-version-check --no-deps --no-build-isolation -e "$top"
    echo "$stamp" >"$venv/stamp"
}

build_guest() {
    step "building the test guest"
    as_root env "PYTHON=$venv/bin/python" "$top/tests/guest/build" "$guest"
}
