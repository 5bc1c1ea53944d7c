# SPDX-License-Identifier: Apache-2.0
"""A private Dovecot on a spool: LMTP in, IMAP out, both on 127.0.0.1.

Everything of it but the mail itself lies below one scratch directory, and it has ports of its own,
so it runs beside a Dovecot of the machine. Deliveries are fsynced as Dovecot's default has it.
"""
import contextlib
import email
import hashlib
import imaplib
import re
import smtplib
import socket
import subprocess
import threading
import time
from pathlib import Path

PROGRAM = "/usr/sbin/dovecot"
OWNER = "mail"
PASSWORD = "spool"

CONFIG = """\
base_dir = {scratch}/run
state_dir = {scratch}/state
log_path = {scratch}/dovecot.log
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
first_valid_uid = 1
service imap-login {{
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp_port}
  }}
}}
"""
CONFIG_23 = """\
default_login_user = dovenull
disable_plaintext_auth = no
mail_location = {format}:~/{format}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={owner} gid={owner} home={spool}/%u
}}
"""
CONFIG_24 = """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
auth_allow_cleartext = yes
mail_driver = {format}
mail_path = ~/{format}
passdb static {{
  password = {password}
}}
userdb static {{
  fields {{
    uid = {owner}
    gid = {owner}
    home = {spool}/%{{user}}
  }}
}}
"""


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Dovecot:
    """`spool` holds a home directory for each user, `form` is `maildir` or `mdbox`."""

    def __init__(self, scratch, spool, form="maildir"):
        self.scratch, self.spool, self.form = Path(scratch), Path(spool), form
        self.lmtp_port, self.imap_port = free_port(), free_port()
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self.scratch.mkdir(parents=True, exist_ok=True)
        version = subprocess.run(
            [PROGRAM, "--version"], capture_output=True, text=True, check=True
        ).stdout
        old = tuple(map(int, re.findall(r"\d+", version)[:2])) < (2, 4)
        text = CONFIG + CONFIG_23 if old else CONFIG_24 + CONFIG
        config = self.scratch / "dovecot.conf"
        config.write_text(
            text.format(
                scratch=self.scratch,
                spool=self.spool,
                format=self.form,
                owner=OWNER,
                password=PASSWORD,
                imap_port=self.imap_port,
                lmtp_port=self.lmtp_port,
            )
        )
        with open(self.scratch / "start.log", "wb") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "-F", "-c", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        deadline = time.monotonic() + 20
        for port in (self.lmtp_port, self.imap_port):
            while not self.answers(port):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Dovecot does not start: {self.log()}")
                time.sleep(0.05)

    @staticmethod
    def answers(port):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            return False

    def stop(self):
        """Ends Dovecot and the processes it started; they are in use of the spool until then."""
        if self.process is None:
            return
        children = self.children()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        deadline = time.monotonic() + 20
        while (
            any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        self.process = None

    def children(self):
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return listed.read_text().split() if listed.exists() else []

    def log(self, whole=False):
        parts = [self.scratch / "start.log", self.scratch / "dovecot.log"]
        text = "".join(part.read_text() for part in parts if part.exists())
        return text if whole else text[-4000:]

    def complaints(self):
        """What its log holds besides the usual."""
        odd = re.compile("Error|Warning|Panic|Fatal|fail|orrupt")
        return "\n".join(line for line in self.log(whole=True).splitlines() if odd.search(line))

    def doveadm(self, *arguments):
        """What Dovecot's own tool prints."""
        command = ["doveadm", "-c", self.scratch / "dovecot.conf", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{command[3:]} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def deliver(self, user, message):
        """Returns when Dovecot has acknowledged the message, which is when it may not be lost any
        more.
        """
        with smtplib.LMTP("127.0.0.1", self.lmtp_port, timeout=60) as lmtp:
            lmtp.sendmail("sender@example.org", [user], message)

    @contextlib.contextmanager
    def mailbox(self, user):
        imap = imaplib.IMAP4("127.0.0.1", self.imap_port, timeout=60)
        try:
            imap.login(user, PASSWORD)
            imap.select("INBOX")
            yield imap
        finally:
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                imap.logout()

    def messages(self, user):
        """What IMAP gives: number of each message of ours → how often it is there, all checked to
        be whole.
        """
        found = {}
        with self.mailbox(user) as imap:
            _, (listed,) = imap.search(None, "ALL")
            for sequence in listed.split():
                _, data = imap.fetch(sequence, "(BODY.PEEK[])")
                number = check(data[0][1])
                found[number] = found.get(number, 0) + 1
        return found


def compose(number, size=2048):
    """A message that says which one it is and carries the checksum of its own body."""
    line = f"message {number} of the spool, and nobody may lose it\r\n"
    body = (line * (size // len(line) + 1))[:size].rstrip() + "\r\n"
    digest = hashlib.sha256(body.encode()).hexdigest()
    return (
        f"From: sender@example.org\r\nTo: spool@example.org\r\nSubject: {number}\r\n"
        f"X-Digest: {digest}\r\n\r\n{body}"
    ).encode()


def check(raw):
    """The number of a message that is whole; one that is not raises."""
    message = email.message_from_bytes(raw)
    body = raw.split(b"\r\n\r\n", 1)[1]
    digest = hashlib.sha256(body).hexdigest()
    if digest != message["X-Digest"]:
        raise ValueError(f"message {message['Subject']} is damaged: {raw[:200]!r} …")
    return int(message["Subject"])


class Deliveries:
    """Several deliverers at once; each keeps one LMTP connection and reports what was acknowledged."""

    def __init__(self, dovecot, users, numbers, deliverers=4, progress=lambda done: None):
        self.dovecot, self.users, self.progress = dovecot, users, progress
        self.waiting = iter(numbers)
        self.lock = threading.Lock()
        self.acknowledged = {}  # number → user
        self.refused = []  # (number, user, why): may have been stored all the same
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(deliverers)]

    def start(self):
        # Dovecot 2.3 panics now and then, on any file system, when several deliveries at once make
        # the mdbox of a new user (fcntl: "Resource deadlock avoided").
        for user in self.users:
            with self.dovecot.mailbox(user):
                pass
        for thread in self.threads:
            thread.start()
        return self

    def join(self, timeout=300):
        deadline = time.monotonic() + timeout
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError("a delivery does not end")
        return self

    def run(self):
        return self.start().join()

    def work(self):
        lmtp = None
        while True:
            with self.lock:
                number = next(self.waiting, None)
            if number is None:
                break
            user = self.users[number % len(self.users)]
            try:
                lmtp = lmtp or smtplib.LMTP("127.0.0.1", self.dovecot.lmtp_port, timeout=60)
                lmtp.sendmail("sender@example.org", [user], compose(number))
                with self.lock:
                    self.acknowledged[number] = user
                    self.progress(len(self.acknowledged))
            except (OSError, smtplib.SMTPException) as error:
                lmtp = None
                with self.lock:
                    self.refused.append((number, user, str(error)))
        if lmtp:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                lmtp.quit()
