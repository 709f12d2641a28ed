"""A TCP relay that a test puts before a server, to see how much comes from it, or to be a bad network."""

import contextlib
import socket
import struct
import threading
import time
import urllib.parse


class Relay:
    """`url` stands for `upstream`; `received` counts the bytes that upstream has sent. `pace` lets so many bytes a second come from it."""

    def __init__(self, upstream: str) -> None:
        parts = urllib.parse.urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._port = 0
        self._listener: socket.socket | None = None
        self._flowing = threading.Event()
        self._flowing.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.received = 0
        self.pace: float | None = None
        self.resume()
        self.address = f"127.0.0.1:{self._port}"
        self.url = f"{parts.scheme}://{self.address}"

    def resume(self) -> None:
        """Listens, at first and after a pause."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            self._port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def pause(self) -> None:
        """Refuses connections; those that are there stay."""
        if self._listener is not None:
            # Closing alone does not wake who waits for a connection.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def stall(self) -> None:
        """Connections stay and are taken, and nothing comes through, until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def reset(self) -> int:
        """Ends what is open as a firewall would, with a reset to both sides; how many connections that were."""
        with self._lock:
            ends = list(self._open)
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # Closing alone does not wake who waits for bytes, and nothing is sent while somebody does.
                end.shutdown(socket.SHUT_RDWR)
                end.close()
        return len(ends) // 2

    def close(self) -> None:
        self.pause()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                try:
                    server = self._connect()
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._open |= {client, server}
                for source, target, counts in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass, args=(source, target, counts), daemon=True).start()

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._upstream)

    def _pass(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                self._flowing.wait()
                if counts:
                    self.received += len(piece)
                    if self.pace:
                        time.sleep(len(piece) / self.pace)
                target.sendall(piece)
        with self._lock:
            self._open -= {source, target}
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
