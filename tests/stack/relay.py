"""A TCP relay that a test puts before a server, to see how much comes from it."""

import contextlib
import socket
import threading
import urllib.parse


class Relay:
    """`url` stands for `upstream`; `received` counts the bytes that upstream has sent."""

    def __init__(self, upstream: str) -> None:
        parts = urllib.parse.urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._port = 0
        self._listener: socket.socket | None = None
        self.received = 0
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
                for source, target, counts in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass, args=(source, target, counts), daemon=True).start()

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._upstream)

    def _pass(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                if counts:
                    self.received += len(piece)
                target.sendall(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
