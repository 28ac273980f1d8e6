# shellcheck shell=bash disable=SC2153,SC2154
# The kvmdriver plugin for DevStack. DevStack calls it as "source plugin.sh MODE [PHASE]", with
# errexit on, so no function may end with a test that fails.
#
# VIRT_DRIVER stays libvirt: that brings libvirt, QEMU, groups and tempest's settings. Only the
# driver that nova-compute loads is exchanged.

# variable, section and option; those of nova.conf and of the agent's file are the same
KVMDRIVER_OPTIONS="
KVMDRIVER_VIRT_TYPE kvm virt_type
KVMDRIVER_MACHINE_TYPE kvm machine_type
KVMDRIVER_DISK_FORMAT kvm_storage disk_format
KVMDRIVER_CPU_MODE kvm_cpu mode
KVMDRIVER_CPU_MODELS kvm_cpu models
KVMDRIVER_CPU_FEATURES kvm_cpu features
KVMDRIVER_CPU_BASELINE_FILE kvm_cpu baseline_file
KVMDRIVER_NESTED_POLICY kvm_nested policy
KVMDRIVER_NESTED_RUNNING_L2 kvm_nested running_l2
KVMDRIVER_KVM_INTEL_OPTIONS kvm_nested kvm_intel_options
KVMDRIVER_KVM_AMD_OPTIONS kvm_nested kvm_amd_options
KVMDRIVER_NATIVE_TLS kvm_migration native_tls
KVMDRIVER_TLS_DIRECTORY kvm_migration tls_directory
KVMDRIVER_MIGRATION_ADDRESS kvm_migration inbound_address
"

# Refuse settings that cannot work, before anything is installed.
function check_kvmdriver {
    local name
    if [[ $VIRT_DRIVER != libvirt ]]; then
        die $LINENO "kvmdriver needs VIRT_DRIVER=libvirt, and local.conf says VIRT_DRIVER=$VIRT_DRIVER: remove that line"
    fi
    if [[ $LIBVIRT_TYPE != kvm && $LIBVIRT_TYPE != qemu ]]; then
        die $LINENO "kvmdriver does not support LIBVIRT_TYPE=$LIBVIRT_TYPE: use kvm or qemu"
    fi
    if [[ ${NOVA_BACKEND:-} == LVM ]]; then
        die $LINENO "kvmdriver does not keep disks in LVM: remove NOVA_BACKEND=LVM"
    fi
    if [[ $KVMDRIVER_CPU_MODE == custom && -z $KVMDRIVER_CPU_MODELS ]]; then
        die $LINENO "KVMDRIVER_CPU_MODE=custom needs KVMDRIVER_CPU_MODELS, in order of preference"
    fi
    if [[ $KVMDRIVER_CPU_MODE == baseline && ! -r $KVMDRIVER_CPU_BASELINE_FILE ]]; then
        die $LINENO "KVMDRIVER_CPU_MODE=baseline needs a file that $STACK_USER can read in KVMDRIVER_CPU_BASELINE_FILE"
    fi
    if [[ $KVMDRIVER_NATIVE_TLS == True ]]; then
        for name in ca-cert.pem server-cert.pem server-key.pem; do
            if ! sudo test -e "$KVMDRIVER_TLS_DIRECTORY/$name"; then
                die $LINENO "KVMDRIVER_NATIVE_TLS=True needs $KVMDRIVER_TLS_DIRECTORY/$name: put the host's certificates there, or set KVMDRIVER_NATIVE_TLS=False"
            fi
        done
    fi
}

function install_kvmdriver {
    setup_develop "$KVMDRIVER_DIR"
    # nova looks for drivers beside its own files only
    ln -sfn "$KVMDRIVER_DIR/nova/virt/kvmdriver.py" "$NOVA_DIR/nova/virt/kvmdriver.py"
    # DevStack makes rootwrap.d anew with each stack.sh
    sudo install -D -o root -g root -m 644 \
        "$KVMDRIVER_DIR/etc/kvmdriver/kvmdriver.filters" \
        "$NOVA_CONF_DIR/rootwrap.d/kvmdriver.filters"
    mkdir -p "$KVMDRIVER_DATA_DIR"
    join_qemu_group
}

# libvirt gives the files of running guests to QEMU's user and group; who is not root reads them as
# a member of that group.
function join_qemu_group {
    local number group
    number=$(sudo virsh -c qemu:///system capabilities |
        sed -n "s:.*<baselabel type='kvm'>+[0-9]*\:+\([0-9]*\)</baselabel>.*:\1:p" | head -n 1)
    group=$(getent group "$number" | cut -d: -f1)
    if [[ -z $group ]]; then
        die $LINENO "libvirt does not tell the group of QEMU: see virsh capabilities, secmodel dac"
    fi
    if ! id -nG "$STACK_USER" | tr ' ' '\n' | grep -qxF "$group"; then
        add_user_to_group "$STACK_USER" "$group"
        echo "$group" >>"$KVMDRIVER_DATA_DIR/joined-groups"
    fi
}

function write_kvmdriver_options { # file
    local file=$1 variable section option
    while read -r variable section option; do
        if [[ -n ${!variable} ]]; then
            iniset "$file" "$section" "$option" "${!variable}"
        fi
    done < <(awk NF <<<"$KVMDRIVER_OPTIONS")
}

function configure_kvmdriver {
    iniset "$NOVA_CONF" DEFAULT compute_driver kvmdriver.KVMDriver
    write_kvmdriver_options "$NOVA_CONF"
    if [[ $KVMDRIVER_AGENT == True ]]; then
        configure_kvmdriver_agent
    fi
    if [[ $KVMDRIVER_NESTED == True ]]; then
        enable_nested
    fi
}

function configure_kvmdriver_agent {
    local directory
    sudo install -d -o "$STACK_USER" "$KVMDRIVER_CONF_DIR"
    for directory in instances images; do
        # QEMU's user passes through
        install -d -m 755 "$KVMDRIVER_DATA_DIR/$directory"
    done
    rm -f "$KVMDRIVER_CONF"
    # the file holds the password of the message bus
    install -m 600 /dev/null "$KVMDRIVER_CONF"
    iniset "$KVMDRIVER_CONF" DEFAULT transport_url "$(get_transport_url)"
    # as DevStack has settled it for nova: it falls back to QEMU where there is no KVM
    iniset "$KVMDRIVER_CONF" kvm virt_type "$(iniget "$NOVA_CONF" libvirt virt_type)"
    iniset "$KVMDRIVER_CONF" kvm_cpu mode "$(iniget "$NOVA_CONF" libvirt cpu_mode)"
    iniset "$KVMDRIVER_CONF" kvm_cpu models "$(iniget "$NOVA_CONF" libvirt cpu_models)"
    iniset "$KVMDRIVER_CONF" kvm_storage instances_path "$KVMDRIVER_DATA_DIR/instances"
    iniset "$KVMDRIVER_CONF" kvm_storage image_directories "$KVMDRIVER_DATA_DIR/images"
    write_kvmdriver_options "$KVMDRIVER_CONF"
}

# Keep what was in modprobe.d before, for clean.sh, and switch nested virtualization on.
function enable_nested {
    local before=$KVMDRIVER_DATA_DIR/kvm-nested.before
    if [[ ! -e $before ]]; then
        if [[ -e $KVMDRIVER_MODPROBE_FILE ]]; then
            cp "$KVMDRIVER_MODPROBE_FILE" "$before"
        else
            touch "$before"
        fi
    fi
    sudo "$NOVA_BIN_DIR/kvmdriver" --config-file "$NOVA_CONF" host nested enable
    # libvirtd caches what QEMU has told it
    restart_service libvirtd
}

function restore_nested {
    local before=$KVMDRIVER_DATA_DIR/kvm-nested.before module
    if [[ ! -e $before ]]; then
        return 0
    fi
    module=$(awk '$1 == "options" {print $2; exit}' "$KVMDRIVER_MODPROBE_FILE")
    if [[ -s $before ]]; then
        sudo install -o root -g root -m 644 "$before" "$KVMDRIVER_MODPROBE_FILE"
    else
        sudo rm -f "$KVMDRIVER_MODPROBE_FILE"
    fi
    rm "$before"
    if [[ -n $module ]] && ! { sudo modprobe -r "$module" && sudo modprobe "$module"; }; then
        warn $LINENO "$module is in use: nested virtualization is as it was after the next boot"
    fi
}

function configure_tempest_for_kvmdriver {
    # what the driver refuses by name
    iniset "$TEMPEST_CONFIG" compute-feature-enabled attach_encrypted_volume False
    iniset "$TEMPEST_CONFIG" compute-feature-enabled volume_multiattach False
    iniset "$TEMPEST_CONFIG" volume-feature-enabled extend_attached_encrypted_volume False
    # what it has
    local feature
    for feature in config_drive console_output interface_attach pause rescue resize shelve \
        snapshot stable_rescue suspend swap_volume; do
        iniset "$TEMPEST_CONFIG" compute-feature-enabled "$feature" True
    done
}

function start_kvmdriver_agent {
    run_process kvmdriver-agent \
        "$NOVA_BIN_DIR/kvmdriver-agent --config-file $KVMDRIVER_CONF" "$LIBVIRT_GROUP"
}

# iniset makes sections that inidelete leaves.
function remove_empty_sections { # file
    local rest
    rest=$(awk '
        /^\[/ {header = ""}
        /^\[kvm(_[a-z]+)?\]$/ {header = $0; next}
        header && !NF {next}
        header {print header; header = ""}
        {print}' "$1")
    echo "$rest" >"$1"
}

# What was put into the trees and files of nova.
function unconfigure_kvmdriver {
    local variable section option
    rm -f "$NOVA_DIR/nova/virt/kvmdriver.py"
    sudo rm -f "$NOVA_CONF_DIR/rootwrap.d/kvmdriver.filters"
    if [[ -e $NOVA_CONF ]]; then
        iniset "$NOVA_CONF" DEFAULT compute_driver libvirt.LibvirtDriver
        while read -r variable section option; do
            inidelete "$NOVA_CONF" "$section" "$option"
        done < <(awk NF <<<"$KVMDRIVER_OPTIONS")
        remove_empty_sections "$NOVA_CONF"
    fi
}

# The disks of the agent's instances are below DATA_DIR, which clean.sh removes.
function delete_agent_instances {
    local command=(sudo "$NOVA_BIN_DIR/kvmdriver" --config-file "$KVMDRIVER_CONF")
    local found
    if [[ ! -e $KVMDRIVER_CONF || -z $(find "$KVMDRIVER_DATA_DIR/instances" -mindepth 1 -name '*-*' -prune) ]]; then
        return 0
    fi
    # no agent runs any more: the command line does the work itself
    inidelete "$KVMDRIVER_CONF" DEFAULT transport_url
    if ! found=$("${command[@]}" server list -f value -c UUID); then
        die $LINENO "the agent's instances cannot be listed, and their disks would be removed: start libvirtd, then run clean.sh again"
    fi
    if [[ -n $found ]]; then
        # shellcheck disable=SC2086 # one word for each instance
        "${command[@]}" server delete $found
    fi
}

function clean_kvmdriver {
    local group
    delete_agent_instances
    restore_nested
    if [[ -e $KVMDRIVER_DATA_DIR/joined-groups ]]; then
        while read -r group; do
            sudo gpasswd -d "$STACK_USER" "$group"
        done <"$KVMDRIVER_DATA_DIR/joined-groups"
    fi
    sudo rm -rf "$KVMDRIVER_DATA_DIR" "$KVMDRIVER_CONF_DIR"
    if [[ ${GLOBAL_VENV:-} == True ]]; then
        # pip_uninstall looks for packages in the system's Python only, unless told otherwise
        PIP_VIRTUAL_ENV=$DEVSTACK_VENV pip_uninstall kvmdriver
    else
        pip_uninstall kvmdriver
    fi
}

if is_service_enabled n-cpu; then
    case "$1 ${2:-}" in
    "stack pre-install")
        check_kvmdriver
        ;;
    "stack install")
        echo_summary "Installing kvmdriver"
        install_kvmdriver
        ;;
    "stack post-config")
        echo_summary "Configuring kvmdriver"
        configure_kvmdriver
        ;;
    "stack extra")
        if [[ $KVMDRIVER_AGENT == True ]]; then
            echo_summary "Starting kvmdriver-agent"
            start_kvmdriver_agent
        fi
        ;;
    "unstack "*)
        stop_process kvmdriver-agent
        unconfigure_kvmdriver
        ;;
    "clean "*)
        clean_kvmdriver
        ;;
    esac
fi
if [[ "$1 ${2:-}" == "stack test-config" ]] && is_service_enabled tempest; then
    configure_tempest_for_kvmdriver
fi
