#!/usr/bin/env bash
# A SLURM cluster of one machine, on loopback only, for the tests of profiles/slurm:
#
#   tests/slurm/cluster.sh up DIR      install what is missing (exit code 3: cannot), start, wait until a job can run
#   tests/slurm/cluster.sh down DIR    stop everything that `up` started
#
# Everything lies in DIR, the machine's own /etc/slurm and munge stay as they are: `PATH=DIR/bin:$PATH` has sbatch,
# squeue and so on that talk to this cluster. Needs root. No systemd, no cgroups, no accounting, as in a
# container. The node's two GPUs are none: they are scheduled, and jobs get CUDA_VISIBLE_DEVICES.
set -euo pipefail

usage() { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# = 2 ] && [[ $1 =~ ^(up|down)$ ]] || usage
command=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)

install() {
    local missing=()
    command -v munged > /dev/null || missing+=(munge)
    command -v slurmctld > /dev/null || missing+=(slurmctld)
    command -v slurmd > /dev/null || missing+=(slurmd)
    command -v sbatch > /dev/null || missing+=(slurm-client)
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get > /dev/null || { echo "error: no ${missing[*]}, and no apt-get to install them" >&2; exit 3; }
    export DEBIAN_FRONTEND=noninteractive
    exec 9> /var/lock/cml_bench-install && flock 9  # two test processes install one after the other
    {
        apt-get update
        # Debian starts services on installation; this cluster has its own. Exit code 101: not allowed.
        local policy=/usr/sbin/policy-rc.d
        if [ ! -e $policy ]; then
            printf '#!/bin/sh\nexit 101\n' > $policy && chmod +x $policy
            trap "rm -f $policy" EXIT
        fi
        apt-get install --yes --no-install-recommends "${missing[@]}"
    } > "$dir/install.log" 2>&1 || { tail -20 "$dir/install.log" >&2; exit 3; }
    exec 9>&-
}

# Ports that nobody has now, so that two clusters can stand side by side.
ports() {
    python3 -c 'import socket
found = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in found))'
}

# Commands that know this cluster's slurm.conf. SLURM_CONF alone will not do: the plugin takes it from a job's srun.
wrap() {
    mkdir -p "$dir/bin"
    local tool real
    for tool in sbatch srun squeue sinfo sacct scancel scontrol; do
        real=$(command -v $tool)
        [ "$real" -ef "$dir/bin/$tool" ] && continue
        printf '#!/bin/sh\nSLURM_CONF=%q exec %q "$@"\n' "$dir/slurm.conf" "$real" > "$dir/bin/$tool"
        chmod +x "$dir/bin/$tool"
    done
}

configure() {
    local controller_port node_port
    read -r controller_port node_port < <(ports)
    mkdir -p "$dir/state" "$dir/spool"
    ln -sfn /dev/null "$dir/gpu0" && ln -sfn /dev/null "$dir/gpu1"  # slurmd wants devices
    [ -e "$dir/munge.key" ] || head -c 1024 /dev/urandom > "$dir/munge.key"
    chmod 400 "$dir/munge.key"
    cat > "$dir/gres.conf" <<CONF
NodeName=localhost Name=gpu File=$dir/gpu[0-1]
CONF
    cat > "$dir/slurm.conf" <<CONF
ClusterName=cml_bench_test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$controller_port
SlurmdPort=$node_port
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
SlurmUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
KillWait=5
ReturnToService=2
# The numbers below are what the node says it has, whatever the machine is.
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=64000 Gres=gpu:2
PartitionName=cpu Nodes=localhost Default=YES MaxTime=60 State=UP
PartitionName=gpu Nodes=localhost MaxTime=60 State=UP
CONF
}

running() { [ -s "$dir/$1.pid" ] && kill -0 "$(cat "$dir/$1.pid")" 2> /dev/null; }

up() {
    [[ $dir =~ ^[[:alnum:]/._+-]+$ ]] || { echo "error: slurm.conf cannot hold the folder $dir" >&2; exit 3; }
    [ "$(id -u)" = 0 ] || { echo "error: munge and slurmd need root" >&2; exit 1; }
    install
    wrap
    export SLURM_CONF="$dir/slurm.conf"
    running slurmctld || running slurmd || configure
    running munged || munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
        --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
    running slurmctld || slurmctld
    running slurmd || slurmd -N localhost
    for _ in $(seq 300); do
        [ "$(sinfo --noheader --format=%t 2> /dev/null | sort -u)" = idle ] && exit 0
        sleep 0.1
    done
    echo "error: no node is idle after 30 s" >&2
    tail -5 "$dir"/*.log >&2
    exit 1
}

down() {
    export SLURM_CONF="$dir/slurm.conf"
    if running slurmctld; then
        scancel --quiet --user=root || true
        for _ in $(seq 150); do [ -n "$(squeue --noheader)" ] || break; sleep 0.1; done
    fi
    for daemon in slurmd slurmctld munged; do
        running $daemon || continue
        local pid
        pid=$(cat "$dir/$daemon.pid")
        kill "$pid"
        for _ in $(seq 100); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2> /dev/null || true
    done
}

"$command"
