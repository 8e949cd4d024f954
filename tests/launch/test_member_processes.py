"""Members as processes: what they print, how they end, and signals."""

import pytest

MAIN = """
import signal, sys, time
flags = dict(a.lstrip("-").partition("=")[::2] for a in sys.argv[1:])
print("to stdout")
print("first line", file=sys.stderr)
print("error:", flags["say"], file=sys.stderr, flush=True)
if flags["say"] == "wait":
  open(flags["workdir"].rpartition("/")[0] + "/ready", "w").close()
  time.sleep(100)
sys.exit(int(flags["end"]))
"""
BODY = """
from launch.member_processes import MemberProcesses
from launch.members import Member

def member(name, say, end):
  return Member(name, (f"--say={say}", f"--end={end}"), "")

processes = MemberProcesses(folder, side_by_side=%s)
for one in (member("a", "no such key", 3), member("b", "nothing", 0)):
  assert processes.start(one)
ended = {}
while processes.running:
  ended |= processes.ended()
for name in "ab":
  print(ended[name].status, ended[name].error)
"""


def run(script, tmp_path, side_by_side):
  (tmp_path / "main.py").write_text(MAIN)
  done = script(BODY % side_by_side)
  assert done.returncode == 0, done.stderr
  return done


def test_the_last_error_is_remembered_and_passed_on(script, tmp_path):
  done = run(script, tmp_path, False)
  assert done.stdout.endswith("3 error: no such key\n0 \n")
  assert sorted(done.stderr.splitlines()) == [
    "error: no such key",
    "error: nothing",
    *["first line"] * 2,
  ]
  assert "[a]" not in done.stdout + done.stderr


def test_side_by_side_each_line_says_whose_it_is(script, tmp_path):
  done = run(script, tmp_path, True)
  lines = done.stdout.splitlines()
  assert {"[a] to stdout", "[b] to stdout", "[a] error: no such key"} < {*lines}
  assert not done.stderr


@pytest.mark.parametrize("number", [2, 15])
def test_a_signal_ends_those_that_run_and_starts_no_other(
  script, tmp_path, number
):
  (tmp_path / "main.py").write_text(MAIN)
  done = script(f"""
    from launch.member_processes import MemberProcesses
    from launch.members import Member

    processes = MemberProcesses(folder, side_by_side=True)
    wait, other = (
      Member(name, ("--say=wait", "--end=0"), "") for name in ("a", "b")
    )
    assert processes.start(wait)
    while not (folder / "ready").exists():
      time.sleep(0.02)
    os.kill(os.getpid(), {number})
    assert not processes.start(other)
    processes.children[0].wait()
    # It ended because of the signal, and not by itself.
    assert processes.ended() == {{}} and processes.running
    print(processes.interrupted(other), processes.received)
  """)
  said = f"interrupted in a; the same command goes on [{number}]"
  assert done.returncode == 0 and said in done.stdout, done.stderr
