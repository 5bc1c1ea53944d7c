# SPDX-License-Identifier: Apache-2.0
"""Services in mount namespaces of their own. No `up` on the machine likes them, so this runs alone."""
import subprocess
import time
from pathlib import Path


def test_up_refuses_while_a_service_is_in_a_namespace_of_its_own(make_volume):
    volume = make_volume()
    volume.create()
    process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "1000"])
    try:
        while Path(f"/proc/{process.pid}/comm").read_text().strip() != "sleep":
            time.sleep(0.01)
        result = volume.up(check=1)
        assert "sleep" in result.err and "namespace" in result.err
        volume.up("--force")
    finally:
        process.kill(), process.wait()
