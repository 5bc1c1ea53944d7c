# SPDX-License-Identifier: Apache-2.0
"""Clients of databases that log outside the volume what they were told is committed."""
import subprocess
import threading
import time


class Client(threading.Thread):
    """A process that is given one transaction after the other on its input, and answers each with a
    line when it is committed. `transaction` makes the text of a number.
    """

    def __init__(self, command, transaction, log, **options):
        super().__init__(daemon=True)
        self.transaction, self.log = transaction, log
        self.acknowledged = self.begun = 0
        self.ended = threading.Event()
        with open(log, "wb") as complaints:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                bufsize=1,
                cwd="/",
                **options,
            )
        self.start()

    def run(self):
        try:
            while not self.ended.is_set():
                self.begun += 1
                self.process.stdin.write(self.transaction(self.begun))
                self.process.stdin.flush()
                if not self.process.stdout.readline():
                    return
                self.acknowledged += 1
        except (BrokenPipeError, ValueError):
            return

    def wait(self, transactions, timeout=60):
        """Until so many more are acknowledged."""
        wanted, deadline = self.acknowledged + transactions, time.monotonic() + timeout
        while self.acknowledged < wanted:
            assert self.is_alive() and time.monotonic() < deadline, self.complaints()
            time.sleep(0.02)

    def stop(self):
        self.ended.set()
        self.join(30)
        self.process.kill()
        self.process.wait()
        self.process.stdin.close(), self.process.stdout.close()

    def complaints(self):
        return self.log.read_text(errors="replace")[-2000:]


def check_numbers(moment, numbers, index=0, gone=lambda number: False):
    """`numbers` are those of a client's transactions that an image holds."""
    found = set(numbers)
    assert len(found) == len(numbers), f"{moment}: a transaction is there twice"
    expected = {number for number in range(1, moment.least[index] + 1) if not gone(number)}
    # Fails if an acknowledged transaction is not in the image.
    assert expected <= found, f"{moment} lacks {sorted(expected - found)[:20]}"
    # Fails if the image goes beyond its moment.
    assert max(found, default=0) <= moment.most[index], f"{moment} holds {max(found)}"
    # Fails if a later one is there without an earlier one.
    assert {number for number in range(1, max(found, default=0)) if not gone(number)} <= found
