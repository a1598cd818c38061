"""Kernels that are copies of one process, which has imported torch and mint_lab: two processor seconds less for each.

Jupyter starts this file with a connection file in place of a kernel. The file asks the one process for a copy of itself
that becomes the kernel, passes signals on to it, and ends with it. A kernel is copied before anything has run in it and
before any thread has started. Notebooks that a test makes from the launcher, Notebook 7 and Voila have usual kernels.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

NAME = "warm"


def specify(data: Path, address: Path) -> None:
    """Write the kernel specification ``warm`` into a data folder of Jupyter."""
    folder = data / "kernels" / NAME
    folder.mkdir(parents=True)
    # No site-packages and no variables of Python's: this start takes hundredths of a second.
    command = [sys.executable, "-S", "-E", __file__, str(address), "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))


def start(address: Path, environment: dict[str, str], log: IO[str]) -> subprocess.Popen[bytes]:
    """Start the process that is copied. Whoever asks for a kernel before it has imported everything waits."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        number = listener.fileno()
        command = [sys.executable, __file__, str(number)]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, pass_fds=[number])


def serve(listener: socket.socket) -> None:
    """Import everything, then make a kernel for whoever asks, until this process is stopped."""
    del sys.path[0]  # the folder of this file
    import ipykernel.kernelapp
    import torch  # noqa: F401
    import transformers  # noqa: F401

    import mint_lab.ui  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system clears ended kernels away
    with listener:
        while True:
            asking, _ = listener.accept()
            message, output, _, _ = socket.recv_fds(asking, 1 << 20, 2)
            if os.fork() == 0:
                listener.close()
                _become_kernel(asking, output, **json.loads(message))
                ipykernel.kernelapp.launch_new_instance()
                os._exit(0)
            for descriptor in output:
                os.close(descriptor)
            asking.close()


def _become_kernel(
    asking: socket.socket, output: list[int], connection: str, folder: str, environment: dict[str, str]
) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor, own in zip(output, (1, 2), strict=True):
        os.dup2(descriptor, own)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    # The kernel ends with its parent, which is not Jupyter's server here.
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    sys.argv = ["ipykernel_launcher", "-f", connection]
    asking.sendall(str(os.getpid()).encode())
    # When the process that asked has gone, the system ends this one: that is what this signal does.
    fcntl.fcntl(asking, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(asking, fcntl.F_SETFL, fcntl.fcntl(asking, fcntl.F_GETFL) | os.O_ASYNC)
    asking.detach()


def stand_in(address: str, connection: str) -> None:
    """Be the kernel's process for Jupyter."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(address)
        wish = {"connection": connection, "folder": str(Path.cwd()), "environment": dict(os.environ)}
        socket.send_fds(asking, [json.dumps(wish).encode()], [1, 2])
        kernel = int(asking.recv(32))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _frame: os.kill(kernel, received))
        asking.recv(1)  # until the kernel has ended


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(socket.socket(fileno=int(sys.argv[1])))
    else:
        stand_in(*sys.argv[1:])
