#!/bin/bash
# Scheduler, workers and a command of yours in one SLURM allocation:
#
#     sbatch --ntasks=8 --cpus-per-task=4 --time=04:00:00 job.sh python map_city.py city.tif
#     sbatch --ntasks=4 --gpus-per-task=1 job.sh geodl classify city.tif model --output-name map.tif
#
# Each task is one worker. GEODL_CLIENT names the scheduler file: the geodl command uses it by
# itself, a script calls geodl.connect(os.environ["GEODL_CLIENT"]). The folder that the job is
# submitted from, and those of rasters, models and products, must be shared by all nodes.
#
# A job that ends too early (walltime, scancel, a lost node) has lost nothing that was finished:
# submit the same line again and the run goes on. With GEODL_REQUEUE=1 it does so by itself, two
# minutes before the walltime ends. Options on the command line win over those below.
#
#SBATCH --job-name=geodl
#SBATCH --ntasks=2
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=4G
#SBATCH --time=01:00:00
#SBATCH --output=geodl-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120

set -euo pipefail

# Settings: how to reach the environment that geodl is installed in, on every node.
if [ -n "${GEODL_ENVIRONMENT:-}" ]; then
    # shellcheck disable=SC1091
    source "$GEODL_ENVIRONMENT/bin/activate"
fi
[ $# -gt 0 ] || { echo "usage: sbatch [options] job.sh COMMAND [ARGUMENTS]" >&2; exit 2; }

folder="$PWD/.geodl-job-$SLURM_JOB_ID"
mkdir -p "$folder"
export GEODL_CLIENT="$folder/scheduler.json"
rm -f "$GEODL_CLIENT"

cpus="${SLURM_CPUS_PER_TASK:-1}"
tasks_here="${SLURM_TASKS_PER_NODE%%[^0-9]*}"
# A worker that outgrows its limit is restarted by Dask; one that outgrows SLURM's ends the job. A
# tenth is left for the scheduler and the command.
if [ -n "${SLURM_MEM_PER_CPU:-}" ]; then
    memory="$((SLURM_MEM_PER_CPU * cpus * 9 / 10))MiB"
elif [ -n "${SLURM_MEM_PER_NODE:-}" ] && [ "$SLURM_MEM_PER_NODE" -gt 0 ]; then
    memory="$((SLURM_MEM_PER_NODE * 9 / 10 / tasks_here))MiB"
else
    memory=auto
fi

scheduler="" workers="" command=""
finish() {
    # Workers first: they would try to reach the scheduler again.
    for process in $workers $scheduler; do
        kill "$process" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT

out_of_time() {
    echo "the walltime ends soon"
    # Like Ctrl-C: the run lets go of its lock, what is finished is kept.
    kill -INT "$command" 2>/dev/null || true
    wait "$command" || true
    if [ -n "${GEODL_REQUEUE:-}" ]; then
        echo "requeueing job $SLURM_JOB_ID"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit 1
}

dask scheduler --scheduler-file "$GEODL_CLIENT" --port 0 --dashboard-address :0 &
scheduler=$!
until [ -s "$GEODL_CLIENT" ]; do
    kill -0 "$scheduler" 2>/dev/null || { echo "the scheduler did not start" >&2; exit 1; }
    sleep 0.2
done

# srun does not take over --cpus-per-task from sbatch.
srun --ntasks="${SLURM_NTASKS:-1}" --cpus-per-task="$cpus" --kill-on-bad-exit=0 \
    dask worker --scheduler-file "$GEODL_CLIENT" --nthreads 2 --memory-limit "$memory" \
    --local-directory "${TMPDIR:-/tmp}" --death-timeout 120 --no-dashboard &
workers=$!

# In a group of its own, or the shell would make it deaf to SIGINT.
set -m
"$@" &
command=$!
set +m
trap out_of_time USR1
status=0
wait "$command" || status=$?
exit "$status"
