# shellcheck shell=bash disable=SC2034,SC2154
# What DevStack gives a plugin, for a root of its own in $ROOT: those functions and variables of its
# documentation that our plugin uses. Packages are really installed, into $ROOT/venv; what would
# change the machine (groups, modules, units) changes files below $ROOT.

DEST=$ROOT/opt/stack
DATA_DIR=$DEST/data
STACK_USER=stack
NOVA_DIR=$DEST/nova
NOVA_CONF_DIR=$ROOT/etc/nova
NOVA_CONF=$NOVA_CONF_DIR/nova.conf
GLOBAL_VENV=True
DEVSTACK_VENV=$ROOT/venv
NOVA_BIN_DIR=$DEVSTACK_VENV/bin
TEMPEST_CONFIG=$DEST/tempest/etc/tempest.conf
VIRT_DRIVER=${VIRT_DRIVER:-libvirt}
LIBVIRT_TYPE=${LIBVIRT_TYPE:-kvm}
LIBVIRT_GROUP=libvirt
ENABLED_SERVICES=${ENABLED_SERVICES:-n-api,n-cpu,tempest}
# where the plugin has its files below / by default
KVMDRIVER_CONF_DIR=$ROOT/etc/kvmdriver
KVMDRIVER_MODPROBE_FILE=$ROOT/etc/modprobe.d/kvm-nested.conf

define_plugin() { :; }
echo_summary() { echo "$*"; }
warn() { echo "WARNING: ${*:2}" >&2; }
die() {
    echo "ERROR: ${*:2}" >&2
    exit 1
}
trueorfalse() {
    case ${!2:-} in
    1 | [Yy]es | YES | [Tt]rue | TRUE) echo True ;;
    0 | [Nn]o | NO | [Ff]alse | FALSE) echo False ;;
    *) echo "$1" ;;
    esac
}
is_service_enabled() { [[ ,$ENABLED_SERVICES, == *,$1,* ]]; }
enable_service() { is_service_enabled "$1" || ENABLED_SERVICES+=,$1; }
get_transport_url() { echo "rabbit://stackrabbit:secret@127.0.0.1:5672/"; }

iniget() { # file section option
    awk -v section="[$2]" -v option="$3" '
        /^\[/ {inside = $0 == section; next}
        inside && $1 == option {sub(/^[^=]*= */, ""); print}' "$1"
}
inidelete() { # file section option
    local rest
    rest=$(awk -v section="[$2]" -v option="$3" '
        /^\[/ {inside = $0 == section}
        !(inside && $1 == option)' "$1")
    echo "$rest" >"$1"
}
iniset() { # file section option value
    touch "$1"
    inidelete "$1" "$2" "$3"
    grep -qxF "[$2]" "$1" || printf '\n[%s]\n' "$2" >>"$1"
    local rest
    rest=$(awk -v section="[$2]" -v line="$3 = $4" '{print} $0 == section {print line}' "$1")
    echo "$rest" >"$1"
}

setup_develop() {
    "$NOVA_BIN_DIR/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
        --no-build-isolation --editable "$1"
}
pip_uninstall() {
    # DevStack's takes the system's Python unless it is told; we leave that and others alone
    [[ -x ${PIP_VIRTUAL_ENV:-}/bin/python && $PIP_VIRTUAL_ENV == "$ROOT"/* ]] || return 0
    "$PIP_VIRTUAL_ENV/bin/python" -m pip uninstall --quiet --disable-pip-version-check --yes "$1"
}

run_process() { # service command group
    is_service_enabled "$1" || return 0
    printf 'ExecStart=%s\nGroup=%s\n' "$2" "$3" >"$ROOT/units/$1.service"
}
stop_process() { rm -f "$ROOT/units/$1.service"; }
restart_service() { echo "restart $1" >>"$ROOT/calls"; }

# the machine's groups, in $ROOT/etc/group: NAME:x:NUMBER:MEMBERS
getent() { # group NUMBER
    awk -F: -v number="$2" '$3 == number' "$ROOT/etc/group"
}
id() { # -nG USER
    awk -F: -v user="$2" '{split($4, names, ","); for (i in names) if (names[i] == user) print $1}' \
        "$ROOT/etc/group" | xargs
}
add_user_to_group() { sed -i "s/^\($2:.*:\)\$/\1$1/" "$ROOT/etc/group"; }

# root's commands, kept below $ROOT
sudo() {
    case $1 in
    virsh) echo "<secmodel><model>dac</model><baselabel type='kvm'>+64055:+994</baselabel>" ;;
    modprobe) "$ROOT/sbin/modprobe" "${@:2}" ;;
    gpasswd) sed -i "s/^\($4:.*:\)$3\$/\1/" "$ROOT/etc/group" ;;
    install)
        # without "-o root -g root", which nobody but root can do
        local arguments=() word skip=no
        for word in "$@"; do
            if [[ $skip == yes ]]; then
                skip=no
            elif [[ $word == -[og] ]]; then
                skip=yes
            else
                arguments+=("$word")
            fi
        done
        "${arguments[@]}"
        ;;
    */kvmdriver)
        if [[ $* == *" host nested "* ]]; then
            "$@" --sysroot "$ROOT"
        else
            "$@"
        fi
        ;;
    *) "$@" ;;
    esac
}
