"""Files by name and glob, unpacked: whole, in bounded memory, or refused."""

import concurrent.futures
import gzip
import os
import pickle
import subprocess
import sys

import pyarrow as pa
import pytest

from data.schemes import files

TEXT = b"".join(b"line %d\n" % i for i in range(30_000))


def compress(codec: str, raw: bytes) -> bytes:
  stream = pa.BufferOutputStream()
  with pa.CompressedOutputStream(stream, codec) as file:
    file.write(raw)
  return stream.getvalue().to_pybytes()


@pytest.fixture(params=[("gzip", ".gz"), ("zstd", ".zst")])
def codec(request):
  return request.param


def _lines(path) -> bytes:
  return b"".join(line.raw for line in files.Bytes([str(path)]).lines(0))


def test_find_sorts_and_tells_what_is_missing(tmp_path):
  for name in ("b.x", "a.x", "c.y", "a[1].x"):
    (tmp_path / name).write_text("")
  (tmp_path / "d.x").mkdir()
  (tmp_path / "d.x" / "e.x").write_text("")
  names = lambda pattern: [
    os.path.relpath(path, tmp_path)
    for path in files.find("jsonl", f"{tmp_path}/{pattern}")
  ]
  assert names("*.x") == ["a.x", "a[1].x", "b.x"]
  assert names("**/*.x") == ["a.x", "a[1].x", "b.x", "d.x/e.x"]
  assert names("[bc].?") == ["b.x", "c.y"]
  # The name of a file that is there is no pattern.
  assert names("a[1].x") == ["a[1].x"]
  with pytest.raises(FileNotFoundError, match=r"jsonl:.*\*\.z: no file match"):
    names("*.z")
  with pytest.raises(FileNotFoundError, match="no such file"):
    names("z")
  with pytest.raises(ValueError, match=r"not a file; .*d\.x/\*"):
    names("d.x")


def test_packed_files_hold_what_plain_ones_do(tmp_path, codec):
  plain, packed = tmp_path / "plain", tmp_path / f"x{codec[1]}"
  plain.write_bytes(TEXT)
  # Members may follow one another.
  packed.write_bytes(
    compress(codec[0], TEXT[:1000]) + compress(codec[0], TEXT[1000:])
  )
  both = files.Bytes([str(packed), str(plain), str(packed)])
  lines = [list(both.lines(i)) for i in (2, 1, 0)]
  assert lines[0] == lines[1] == lines[2]
  assert b"".join(line.raw for line in lines[0]) == TEXT
  assert len(set(both.digests)) == 1
  travelled = pickle.loads(pickle.dumps(both))
  for line in lines[0][::997]:
    for i in range(3):
      for contents in (both, travelled):
        assert contents.read(i, line.offset, line.size) == line.raw


def test_another_process_unpacks_nothing_again(tmp_path, codec, monkeypatch):
  paths = [tmp_path / f"{i}{codec[1]}" for i in range(2)]
  for path in paths:
    path.write_bytes(compress(codec[0], TEXT + path.name.encode()))
  one = files.Bytes([str(path) for path in paths])
  first = one.read(0, 0, 99)
  unpack, done = files._unpack, []
  monkeypatch.setattr(
    files, "_unpack", lambda *a: done.append(a[0]) or unpack(*a)
  )
  sent = pickle.dumps(one)
  other = pickle.loads(sent)
  assert other.read(0, 0, 99) == first and not done
  # What was not unpacked yet is its own matter; so is all of it where the
  # lender is gone.
  assert other.read(1, len(TEXT), 9) == paths[1].name.encode()
  assert pickle.loads(pickle.dumps(other)).read(1, 0, 99) == first
  assert done == [str(paths[1])]
  del one
  late = pickle.loads(sent)
  assert late.read(0, 0, 99) == first and done[1:] == [str(paths[0])]


def test_what_python_packs_is_read(tmp_path):
  path = tmp_path / "x.gz"
  path.write_bytes(gzip.compress(TEXT))
  assert _lines(path) == TEXT


@pytest.mark.parametrize(
  "damage",
  [
    lambda raw: raw[:-1],
    lambda raw: raw[: len(raw) // 2],
    lambda raw: raw[:3],
    lambda raw: b"",
    lambda raw: raw + b"more",
    lambda raw: raw + raw[:50],
    lambda raw: TEXT,
    lambda raw: raw[:20] + bytes(40) + raw[60:],
  ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, codec, damage):
  path = tmp_path / f"x{codec[1]}"
  path.write_bytes(damage(compress(codec[0], TEXT)))
  with pytest.raises(ValueError, match=rf"x{codec[1]}: .*make it again"):
    _lines(path)


def test_a_full_disk_names_the_file_and_the_folder(
  tmp_path, codec, monkeypatch
):
  path = tmp_path / f"x{codec[1]}"
  path.write_bytes(compress(codec[0], TEXT))

  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "pwrite", full)
  with pytest.raises(OSError, match=r"no room to unpack it.* set TMPDIR") as e:
    _lines(path)
  assert str(path) in str(e.value) and e.value.errno == 28


def test_a_short_write_goes_on(tmp_path, codec, monkeypatch):
  path = tmp_path / f"x{codec[1]}"
  path.write_bytes(compress(codec[0], TEXT))
  pwrite = os.pwrite
  monkeypatch.setattr(os, "pwrite", lambda f, raw, at: pwrite(f, raw[:999], at))
  assert _lines(path) == TEXT


def test_nothing_stays_among_temporary_files(tmp_path, codec, monkeypatch):
  path = tmp_path / f"x{codec[1]}"
  path.write_bytes(compress(codec[0], TEXT))
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
  contents = files.Bytes([str(path)])
  assert len(list(contents.lines(0))) == 30_000
  assert os.listdir(tmp_path) == [path.name]


def test_lines_that_are_too_long_are_passed_over(tmp_path, monkeypatch):
  monkeypatch.setattr(files, "MAX_LINE", 8)
  path = tmp_path / "x"
  long = b"y" * 20 + b"\n"
  parts = [b"short\n", long, b"\n", b"1234567\n", b"12345678\n", b"z" * 16]
  path.write_bytes(b"".join(parts))
  lines = list(files.Bytes([str(path)]).lines(0))
  assert [line.size for line in lines] == [6, 21, 1, 8, 9, 16]
  assert [line.number for line in lines] == [1, 2, 3, 4, 5, 6]
  assert [line.raw for line in lines] == [
    parts[0],
    None,
    parts[2],
    parts[3],
    None,
    None,
  ]
  assert [line.offset for line in lines] == [0, 6, 27, 28, 36, 45]


# Half a gigabyte that was packed in a megabyte, without a newline.
BOMB = """
import resource, sys
from data.schemes import files
contents = files.Bytes(sys.argv[1:])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(line,) = contents.lines(0)
assert line.raw is None and line.size == 1 << 29
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(after - before)
"""


def test_unpacking_takes_bounded_memory(tmp_path, codec):
  path = tmp_path / f"x{codec[1]}"
  path.write_bytes(compress(codec[0], bytes(1 << 24)) * 32)
  assert path.stat().st_size < 1 << 20
  done = subprocess.run(
    [sys.executable, "-c", BOMB, str(path)],
    capture_output=True,
    text=True,
    env=os.environ | {"TMPDIR": str(tmp_path)},
  )
  assert done.returncode == 0, done.stderr
  # The longest line that is held, twice, and the codec's window.
  assert int(done.stdout) < 300 << 10
  assert os.listdir(tmp_path) == [path.name]


# What a program still holds outlives the names of the modules.
LAST = """
import sys
from data import sources
held = sources.open_source(f"jsonl:{sys.argv[1]}", fields=("source",))
held[0]
"""


def test_a_process_ends_quietly(tmp_path):
  (tmp_path / "x").write_text('{"source": "a"}')
  done = subprocess.run(
    [sys.executable, "-c", LAST, str(tmp_path / "x")],
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stderr) == (0, "")


def test_threads_may_read_together(tmp_path, codec, monkeypatch):
  monkeypatch.setattr(files, "_OPEN", 1)
  paths = [tmp_path / f"{i}{codec[1] if i % 2 else ''}" for i in range(8)]
  for i, path in enumerate(paths):
    raw = f"{i}\n".encode() * 1000
    path.write_bytes(compress(codec[0], raw) if i % 2 else raw)
  contents = files.Bytes([str(path) for path in paths])
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    read = pool.map(
      lambda n: contents.read(n % 8, 2 * (n % 1000), 2), range(4000)
    )
    assert list(read) == [f"{n % 8}\n".encode() for n in range(4000)]


def test_more_files_than_may_be_open(tmp_path, monkeypatch):
  paths = [tmp_path / str(i) for i in range(3 * files._OPEN)]
  for path in paths:
    path.write_text(f"{path.name}\n")
  before = len(os.listdir("/proc/self/fd"))
  contents = files.Bytes([str(path) for path in paths])
  for i in (*range(len(paths)), 5, 70):
    assert contents.read(i, 0, 9) == f"{i}\n".encode()
  assert len(os.listdir("/proc/self/fd")) <= before + files._OPEN + 1
  del contents
  assert len(os.listdir("/proc/self/fd")) <= before + 1
