#!/usr/bin/env bash
#SBATCH --job-name=synq-tune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# A study on Slurm, submitted from the check-out (`make env` was run there):
#   sbatch --nodes=4 --gpus-per-node=2 scripts/cluster/slurm.sh --space resnet18_w3a3 --output-dir studies/resnet18
# The arguments are search.py's; --output-dir must be given, so that the job goes on where it was when
# it is queued again: by this script at the end of its time, by Slurm after a preemption or a lost node.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch}"
BIN=$PWD/.venv/bin
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token RAY_AUTH_TOKEN
# Of this job alone; srun hands it on in the environment, and nothing prints it.
RAY_AUTH_TOKEN=$("$BIN/python" -c 'import secrets; print(secrets.token_hex(32))')

case " $* " in
  *" --output-dir"* | *" --resume"*) ;;
  *) echo 'error: `--output-dir or --resume is given` must hold, so that a requeued job goes on.' >&2; exit 2 ;;
esac

driver=
reason=
# The end of the time (USR1) asks for another turn; scancel and preemption (TERM) only stop the study.
stop() { reason=$1; [ -z "$driver" ] || kill -INT "$driver" 2>/dev/null || true; }
insist() { sleep 15; kill -INT "$driver" 2>/dev/null || true; } # Slurm kills 30 s after its TERM
# Slurm sends TERM to every process of the job. The driver would wait for a Ray that is gone, deaf to
# a second signal: so only this script hears it, and tells the driver by INT, which `&` has ignored.
deaf=("$BIN/python" -c 'import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])')
run() { # until it is gone: a trapped signal ends `wait` too
  code=0
  "${deaf[@]}" "$@" <&0 &
  driver=$!
  sleep 1 # until it heeds INT
  [ -z "$reason" ] || stop "$reason" # told meanwhile, or before
  wait "$driver" || code=$?
  while kill -0 "$driver" 2>/dev/null; do code=0; wait "$driver" || code=$?; done
}
out_of_time() { # a driver that needs longer than USR1 leaves it gets a TERM of Slurm's
  [ "$reason" = time ] ||
    [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%r 2>/dev/null)" = TimeLimit ]
}
trap 'stop time' USR1
trap 'stop told; insist &' TERM
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
read -r address _ < <(hostname -I) # this script runs on the first node
port=$((20000 + SLURM_JOB_ID % 10000))
node=(--overlap --cpus-per-task="$SLURM_CPUS_PER_TASK")
start=("${deaf[@]}" "$BIN/ray" start --block --disable-usage-stats --num-cpus="$SLURM_CPUS_PER_TASK")

# --ntasks: otherwise srun takes that of the whole job, which its environment has.
srun "${node[@]}" --nodes=1 --ntasks=1 --nodelist="${hosts[0]}" \
  "${start[@]}" --head --node-ip-address="$address" --port="$port" --include-dashboard=false &
steps=($!)
others=$((${#hosts[@]} - 1))
if [ "$others" -gt 0 ]; then
  srun "${node[@]}" --nodes="$others" --ntasks="$others" --exclude="${hosts[0]}" \
    "${start[@]}" --address="$address:$port" &
  steps+=($!)
fi

run "$BIN/python" - "$address:$port" "${#hosts[@]}" "${steps[@]}" <<'PYTHON'
import os, socket, sys, time

deadline = time.time() + 300
host, port = sys.argv[1].split(":")


def pause():  # what does not run cannot join: srun said why
    if not all(os.path.exists(f"/proc/{step}") for step in sys.argv[3:]):
        sys.exit("error: `srun starts Ray on every node` must hold, but a step ended. See above.")
    time.sleep(1)


while True:
    try:
        socket.create_connection((host, int(port)), 5).close()
        break
    except OSError as error:
        if time.time() > deadline:
            sys.exit(f"error: no Ray head at {sys.argv[1]} after 300 s: {error}")
        pause()

import ray

ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
while (alive := sum(node["Alive"] for node in ray.nodes())) < int(sys.argv[2]):
    if time.time() > deadline:
        sys.exit(f"error: {alive} of {sys.argv[2]} nodes joined within 300 s")
    pause()
PYTHON
if [ "$code" -eq 0 ]; then
  run "$BIN/python" scripts/search.py "$@" --ray-address "$address:$port"
fi
if [ "$code" -ne 0 ] && out_of_time; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
