#!/bin/sh
# Starts a SLURM cluster of one node, this machine, for tests: start_slurm.sh FOLDER
#
# Nothing is installed, and all state lies in FOLDER, with slurm.conf. Prints the line that makes
# the commands of SLURM use it. Run as root; stop_slurm.sh FOLDER ends what was started.
set -eu
folder=$(mkdir -p "$1" && cd "$1" && pwd)
# nproc would obey OMP_NUM_THREADS, which tests set to 1.
cores=$(getconf _NPROCESSORS_ONLN)
memory_mb=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
host=$(hostname -s)
mkdir -p "$folder/state" "$folder/spool" "$folder/log"
chmod 755 "$folder"

# The key that Debian's package made may be absent in a container.
if [ ! -s "$folder/munge.key" ]; then
    dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 status=none
    chmod 600 "$folder/munge.key"
fi
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/log/munged.log" \
    --seed-file="$folder/munge.seed"

# Two ports that are free, so that a SLURM of the machine's own is left alone.
ports=$(python3 -c "
import socket
held = [socket.socket() for _ in range(2)]
[s.bind(('', 0)) for s in held]
print(*[s.getsockname()[1] for s in held])")
controller_port=${ports% *}
node_port=${ports#* }

cat >"$folder/slurm.conf" <<CONF
ClusterName=geodl
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$controller_port
SlurmdPort=$node_port
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,batch_sched_delay=0,sched_interval=5
ReturnToService=2
KillWait=5
OverTimeLimit=0
InactiveLimit=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory_mb State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
CONF
export SLURM_CONF="$folder/slurm.conf"
slurmctld -c
slurmd -c

tries=0
until [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 60 ]; then
        echo "the node did not become idle: $(sinfo --noheader --format='%t %E' 2>&1)" >&2
        tail -n 20 "$folder"/log/*.log >&2
        exit 1
    fi
    sleep 0.5
done
echo "SLURM_CONF=$SLURM_CONF"
