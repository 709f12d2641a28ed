"""The Rust tests of crates/kafka that need a broker: they run here, where there is one."""

import os
import subprocess

import pytest

from stack.versions import TESTS


@pytest.mark.parametrize("path", ["batches", "librdkafka"])
def test_fetching_and_offsets_against_a_real_broker(own_broker, path):
    command = ["cargo", "test", "--workspace", "--locked", "--test", "brokers", "--", "--nocapture"]
    environment = os.environ | {"ISK_TEST_BOOTSTRAP": own_broker.bootstrap, "ISK_TEST_FETCH": path}
    done = subprocess.run(command, cwd=TESTS.parent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout[-5000:])
    assert done.returncode == 0
    assert "NOT RUN" not in done.stdout
