#!/usr/bin/env bash
set -euo pipefail
folder=$(mktemp -d)
gcloud compute tpus queued-resources create b2b --node-id=b2b --accelerator-type=v5litepod-16 --runtime-version=v2 --spot --project=p --zone=us-west4-a --quiet
until [[ "$(gcloud compute tpus queued-resources describe b2b '--format=value(state.state)' --project=p --zone=us-west4-a --quiet)" == ACTIVE ]]; do sleep 30; done
tar --exclude=__pycache__ -czf "$folder/encdec.tar.gz" -C /code LICENSE README.md constraints.txt main.py pyproject.toml configs data encdec launch train
gcloud compute tpus tpu-vm scp "$folder/encdec.tar.gz" b2b: --project=p --zone=us-west4-a --worker=all --quiet
gcloud compute tpus tpu-vm ssh b2b --project=p --zone=us-west4-a --worker=all --quiet '--command=
set -euo pipefail
packages() { sudo apt-get -o DPkg::Lock::Timeout=300 --yes --quiet "$@"; }
mkdir -p ~/encdec
tar -xzf ~/encdec.tar.gz -C ~/encdec
if ! command -v python3.11 >/dev/null; then
  packages update
  packages install python3.11 python3.11-venv
fi
cd ~/encdec
[[ -x .venv/bin/python ]] || python3.11 -m venv .venv
.venv/bin/pip install --quiet -c constraints.txt -e '"'"'.[train,tpu]'"'"'
if ! mountpoint -q -- /bucket; then
  sudo mkdir -p -- /bucket
  if ! command -v gcsfuse >/dev/null; then
    google=https://packages.cloud.google.com/apt
    key=/usr/share/keyrings/cloud.google.asc
    curl -fsSL "$google/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] $google gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    packages update
    packages install gcsfuse
  fi
  sudo chown "$USER" -- /bucket
  gcsfuse --implicit-dirs -- bb /bucket
fi
'
status=0
started=()
gcloud compute tpus tpu-vm ssh b2b --project=p --zone=us-west4-a --worker=all --quiet '--command=
cd ~/encdec || exit 1
stop() {
  [[ -s main.pid ]] && kill -TERM "$(cat main.pid)" 2>/dev/null || return 0
  for _ in {1..10}; do
    kill -0 "$(cat main.pid)" 2>/dev/null || return 0
    sleep 1
  done
  kill -KILL "$(cat main.pid)" 2>/dev/null
}
stop
.venv/bin/python main.py --config=configs/bert2bert_cnn_dailymail.py:pod --workdir=/bucket/runs/b2b '"'"'--config.a=it'"'"'"'"'"'"'"'"'s $x'"'"' </dev/null &
echo $! >main.pid
wait $!
status=$?
rm -f main.pid
echo "encdec-host-ended $(hostname) $status"
exit $status
' &
started+=($!)
for process in "${started[@]}"; do
  wait "$process" || status=$?
done
gcloud compute tpus queued-resources delete b2b --force --project=p --zone=us-west4-a --quiet
exit $status
