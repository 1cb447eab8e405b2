#!/bin/sh
# Ends the cluster that start_slurm.sh FOLDER started, and its jobs.
set -u
folder=$(cd "$1" && pwd)
export SLURM_CONF="$folder/slurm.conf"
scancel --full --user="$(id -un)" 2>/dev/null
sleep 1
for daemon in slurmd slurmctld munged; do
    if [ -s "$folder/$daemon.pid" ]; then
        kill "$(cat "$folder/$daemon.pid")" 2>/dev/null
    fi
done
tries=0
while [ "$tries" -lt 40 ] && [ -e "$folder/slurmctld.pid" ]; do
    tries=$((tries + 1))
    sleep 0.25
done
exit 0
