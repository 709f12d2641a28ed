"""Server processes: started in a group of their own with a log, waited for, and always ended by id.

A small companion process (`reaper`) ends what is left even when this one is killed.
"""

import atexit
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

TAIL_LINES = 60

_lock = threading.Lock()
_handed_out: set[int] = set()
_live: list["Server"] = []
_work_root: Path | None = None
_reaper: subprocess.Popen | None = None


class StartFailed(RuntimeError):
    """A server ended or stayed silent while it was waited for; the message holds the end of its log."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on and that this process was not given before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with _lock:
            if port not in _handed_out:
                _handed_out.add(port)
                return port


def work_root() -> Path:
    """The folder of this run; removed at its end unless $ISK_TEST_KEEP is set."""
    global _work_root
    with _lock:
        if _work_root is None:
            _work_root = Path(tempfile.mkdtemp(prefix="isk-stack-"))
        return _work_root


def live_servers() -> list["Server"]:
    """The servers that were started and not stopped, in starting order."""
    return list(_live)


class Server:
    """A program that serves until it is stopped. Subclasses say how it is run and when it is ready."""

    name = "server"
    start_seconds = 60.0
    stop_seconds = 15.0
    # Whether it is asked to end even where nobody needs it or its data any more. That takes many servers seconds.
    ends_politely = False

    def __init__(self) -> None:
        self.work = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=work_root()))
        self.log = self.work / "log"
        self.process: subprocess.Popen | None = None
        self._log_start = 0

    # What a subclass fills in.

    def prepare(self) -> None:
        """Runs once, before the first start."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Variables on top of this process's own."""
        return {}

    def is_ready(self) -> bool:
        raise NotImplementedError

    # What a user calls.

    def start(self, wait: bool = True) -> "Server":
        """Starts the program and waits until it serves; `wait=False` returns at once."""
        if self.is_running():
            return self
        if not self.log.exists():
            self.log.touch()
            self.prepare()
        self._log_start = self.log.stat().st_size
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.work,
                env=os.environ | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        tell_reaper(f"+{self.process.pid}")
        _live.append(self)
        if wait:
            self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_seconds
        while not self.is_ready():
            if not self.is_running():
                code = self.process.returncode if self.process else None
                raise StartFailed(f"{self.name} ended with {code} while starting\n{self.log_tail()}")
            if time.monotonic() > deadline:
                tail = self.log_tail()
                self.kill()
                raise StartFailed(f"{self.name} was not ready within {self.start_seconds:.0f} s\n{tail}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Asks the program to end, and makes it end when it does not."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the program as a crash would, without a chance to tidy up."""
        self._end(signal.SIGKILL)

    def discard(self) -> None:
        """Ends the program for good."""
        self.stop() if self.ends_politely else self.kill()

    def restart(self) -> "Server":
        """Stops and starts again: same ports, same data."""
        self.stop()
        return self.start()

    def send(self, number: int) -> None:
        """Sends a signal to the whole group: SIGSTOP makes a server that hangs, SIGCONT ends that."""
        if self.process:
            os.killpg(self.process.pid, number)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log_text(self) -> str:
        """What was logged since the last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.discard()

    def _end(self, first: signal.Signals) -> None:
        process = self.process
        if process is None:
            return
        for number, patience in ((first, self.stop_seconds), (signal.SIGKILL, 10.0)):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                pass
            try:
                process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
        _kill_group(process.pid)
        tell_reaper(f"-{process.pid}")
        self.process = None
        if self in _live:
            _live.remove(self)


def start_together(servers: list[Server]) -> None:
    """Starts all, then waits for all: they take their time side by side."""
    for server in servers:
        server.start(wait=False)
    for server in servers:
        server.wait_until_ready()


def http_ok(url: str, seconds: float = 2.0, tls: ssl.SSLContext | None = None) -> bool:
    """Whether a GET of this address answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=seconds, context=tls) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def tell_reaper(line: str) -> None:
    global _reaper
    with _lock:
        if _reaper is None:
            _reaper = subprocess.Popen(
                [sys.executable, "-I", Path(__file__).with_name("reaper.py")],
                stdin=subprocess.PIPE,
                start_new_session=True,
                text=True,
            )
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)) if _may_set_signals() else None
        try:
            _reaper.stdin.write(line + "\n")
            _reaper.stdin.flush()
        except BrokenPipeError:
            pass


def _may_set_signals() -> bool:
    in_main_thread = threading.current_thread() is threading.main_thread()
    return in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@atexit.register
def _end_everything() -> None:
    for server in reversed(live_servers()):
        server.stop_seconds = 5.0
        server.discard()
    if _work_root and not os.environ.get("ISK_TEST_KEEP"):
        shutil.rmtree(_work_root, ignore_errors=True)
