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
packages() { # dpkg|rpm [openstack]
    sed -e 's/#.*//' "$top/bindep.txt" | awk -v ours="platform:$1" -v with="${2:-}" '
        /openstack/ && with == "" {next}
        NF && (!/platform:/ || index($0, ours)) {print $1}'
}

install_packages() { # [openstack]
    local missing=() package
    if command -v apt-get >/dev/null; then
        for package in $(packages dpkg "$@"); do
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
        for package in $(packages rpm "$@"); do
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

# libosinfo's bindings (python3-gi) exist for the system's Python only, so that one is used; of its
# other packages nothing is seen, since they would not fit those installed here.
install_python() { # requirements files
    local file packages
    if ! fresh venv "$top/tools/setup.sh"; then
        step "making a Python environment in .venv"
        /usr/bin/python3 -m venv --clear "$venv"
        packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        ln -s "$(/usr/bin/python3 -c 'import gi, os; print(os.path.dirname(gi.__file__))')" \
            "$packages/gi"
        pip_install pbr setuptools wheel
        stamp venv "$top/tools/setup.sh"
    fi
    for file in "$@"; do
        fresh "$file" "$top/$file" && continue
        step "installing the Python packages of $file"
        pip_install -r "$top/$file"
        stamp "$file" "$top/$file"
    done
    # nova finds drivers beside its own files only, unless a wheel of kvmdriver is installed
    packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    if [ -d "$packages/nova/virt" ]; then
        ln -sfn "$top/nova/virt/kvmdriver.py" "$packages/nova/virt/kvmdriver.py"
    fi
    if ! fresh kvmdriver "$top/setup.cfg"; then
        # without isolation: what the build needs is there already
        pip_install --no-deps --no-build-isolation -e "$top"
        stamp kvmdriver "$top/setup.cfg"
    fi
    # Hundreds of processes start in the tests. None should compile the sources anew, also where
    # PYTHONDONTWRITEBYTECODE is set.
    "$venv/bin/python" -m compileall -q "$top/kvmdriver" "$top/tests"
}
pip_install() { "$venv/bin/pip" install -qq --disable-pip-version-check "$@"; }
# What was installed is known by the checksum of what asked for it.
fresh() { [ "$(sha256sum <"$2")" = "$(cat "$venv/stamp.${1//\//-}" 2>/dev/null)" ]; }
stamp() { sha256sum <"$2" >"$venv/stamp.${1//\//-}"; }

build_guest() {
    step "building the test guest"
    as_root env "PYTHON=$venv/bin/python" "$top/tests/guest/build" "$guest"
}
