"""An object as a file that is read range by range: a footer first, pages when they are asked for."""

import io


class RangedFile(io.RawIOBase):
    """A file of the gateway, read by ranges as pyarrow asks for them."""

    def __init__(self, s3, key):
        self.s3, self.key, self.at = s3, key, 0
        self.size = s3.head_object(Bucket="hotset", Key=key)["ContentLength"]

    def seekable(self):
        return True

    def readable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self):
        return self.at

    def read(self, length=-1):
        end = self.size if length is None or length < 0 else min(self.size, self.at + length)
        if end <= self.at:
            return b""
        answer = self.s3.get_object(Bucket="hotset", Key=self.key, Range=f"bytes={self.at}-{end - 1}")["Body"].read()
        self.at += len(answer)
        return answer
