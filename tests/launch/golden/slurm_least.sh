#!/usr/bin/env bash
#SBATCH --job-name=b2b
#SBATCH --account=lab
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output="/shared/runs/b2b/slurm-%j.out"

set -uo pipefail
name=b2b
workdir=/shared/runs/b2b
main=(
  /venv/bin/python
  /code/main.py
  --config=c.py
  --workdir=/shared/runs/b2b
)

cd -- /code || exit 1
mkdir -p -- "$workdir" || exit 1
file=$workdir/exit_status.json

# Writes how main.py ended, whole or not at all: status, restarts, again.
write_status() {
  {
    printf '{"name": "%s", "job": "%s", ' "$name" "$SLURM_JOB_ID"
    printf '"status": %s, "restarts": %d, "again": %s}\n' "$@"
  } >"$file.partial" && mv -f -- "$file.partial" "$file"
}

# A job that is cancelled or preempted gets SIGTERM whole. This shell stays
# until its tasks have saved, and writes it down.
trap : TERM

restarts=
if grep -qs "\"job\": \"$SLURM_JOB_ID\"" "$file"; then
  restarts=$(sed -n 's/.*"restarts": \([0-9]*\).*/\1/p' "$file")
fi
restarts=${restarts:-0}
write_status null "$restarts" true

# The steps that are saved. An incomplete one has no number alone as its name.
saved() {
  for step in "$workdir"/{checkpoints,interrupted}/*; do
    [[ ${step##*/} =~ ^[0-9]+$ ]] && echo "$step"
  done
}
saved_before=$(saved)

# A task that ends waits for the others, which may still be saving.
srun --nodes=1 --ntasks=1 --ntasks-per-node=1 \
  --kill-on-bad-exit=0 --wait=120 "${main[@]}"
status=$?

again=false
if ((status == 75 || (status > 128 && status < 160 && status != 130))); then
  again=true
fi
# A stop is no failure where something was saved. A start whose time is over
# before its first step would come back for ever.
failed=true
if ((status == 143)) && [[ $(saved) != "$saved_before" ]]; then
  failed=false
fi
if $again && $failed; then
  if ((restarts < 10)); then
    restarts=$((restarts + 1))
  else
    again=false
    echo "main.py ended by $status: it has had its 10 restarts"
  fi
fi
if $again; then
  # One that was cancelled is completing, and must not come back.
  state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
  if [[ $state == COMPLETING || $state == CANCELLED* ]]; then
    again=false
  fi
fi
write_status "$status" "$restarts" "$again"
if $again; then
  echo "main.py ended by $status: the job goes back into the queue"
  scontrol requeue "$SLURM_JOB_ID" && exit 0
  write_status "$status" "$restarts" false
fi
exit "$status"
