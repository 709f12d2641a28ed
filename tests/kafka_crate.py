"""The Rust tests of crates/kafka that need a broker: they run here, where there is one."""

import os
import subprocess

from stack.versions import TESTS


def test_fetching_and_offsets_against_a_real_broker(own_broker):
    command = ["cargo", "test", "--workspace", "--locked", "--test", "brokers", "--", "--nocapture"]
    environment = os.environ | {"ISK_TEST_BOOTSTRAP": own_broker.bootstrap}
    done = subprocess.run(command, cwd=TESTS.parent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout[-5000:])
    assert done.returncode == 0
    assert "NOT RUN" not in done.stdout
