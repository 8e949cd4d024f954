"""Connections to process 0: who may have one, and where it is found."""

import socket
import threading

import pytest

from train.processes import links

TOKEN = bytes(range(links.TOKEN))


@pytest.fixture
def listener():
  with links.listen("127.0.0.1") as found:
    found.settimeout(5)
    yield found


def greet(listener, token):
  """What process 0 makes of who connects with this token, in the background."""
  found = []

  def take():
    connection, _ = listener.accept()
    found.append(links.greeted(connection, token))

  thread = threading.Thread(target=take)
  thread.start()
  return thread, found


def test_an_address_that_leads_nowhere_is_passed_over(listener):
  port = listener.getsockname()[1]
  thread, found = greet(listener, TOKEN)
  link = links.connect(["no.such.host.invalid", "127.0.0.1"], port, TOKEN, 3)
  thread.join()
  assert link is not None and link.process == 0
  assert found[0].process == 3
  link.connection.close()
  found[0].connection.close()
  assert links.connect(["no.such.host.invalid"], port, TOKEN, 3) is None


@pytest.mark.parametrize("hello", [b"x" * 18, b"", b"short"])
def test_a_stranger_is_no_process_of_the_run(listener, hello):
  thread, found = greet(listener, TOKEN)
  with socket.create_connection(listener.getsockname()) as stranger:
    stranger.sendall(hello)
    stranger.shutdown(socket.SHUT_WR)
    thread.join()
  assert found == [None]


def test_a_run_on_one_machine_listens_there_alone():
  with links.listen("localhost") as listener:
    assert listener.getsockname()[0] == "127.0.0.1"
  with links.listen("10.0.0.1") as listener:
    assert listener.getsockname()[0] in ("::", "0.0.0.0")
  assert links.addresses("10.0.0.1")[0] == "10.0.0.1"
  assert socket.gethostname() in links.addresses("")
