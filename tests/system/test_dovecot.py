# SPDX-License-Identifier: Apache-2.0
"""A real Dovecot on the overlay: what LMTP acknowledged, IMAP gives, from either tree, whatever was
killed.
"""
import concurrent.futures
import contextlib
import os
import random
import re
import shutil
import subprocess
import time

import pytest
from dovecot import OWNER, Deliveries, Dovecot, compose

USERS = ["anna", "bert", "carl"]
FORMS = ["maildir", "mdbox"]
LISTING_SECONDS = 4 * float(os.environ.get("TWINSPOOL_LISTING_SECONDS", "1"))


@pytest.fixture
def spool(make_volume):
    volume = make_volume()
    shutil.chown(volume.dir, OWNER, OWNER)
    return volume.start()


def mailboxes(dovecot):
    """Number of each message → how often it is in the mailboxes; each is checked to be whole."""
    found = {}
    for user in USERS:
        for number, times in dovecot.messages(user).items():
            found[number] = found.get(number, 0) + times
    return found


def drop_locks(directory):
    """What a delivery could not remove any more. Dovecot would wait two minutes before it takes
    such a lock for stale, after a power cut as well.
    """
    for lock in directory.rglob("*.lock"):
        lock.unlink()


@contextlib.contextmanager
def on_a_copy_of_the_replica(volume, form):
    """The standby's tree is plain files that a mail server can run on; a copy, because Dovecot
    writes.
    """
    copy = volume.base / f"copy{time.monotonic_ns()}"
    subprocess.run(["cp", "-a", volume.replica(), copy], check=True)
    drop_locks(copy)
    with Dovecot(volume.base / f"{copy.name}.dovecot", copy, form) as dovecot:
        yield dovecot


@pytest.mark.parametrize("form", FORMS)
def test_every_message_comes_out_as_it_went_in(spool, form):
    with Dovecot(spool.base / "dovecot", spool.dir, form) as dovecot:
        deliveries = Deliveries(dovecot, USERS, range(300)).run()
        assert not deliveries.refused, dovecot.complaints()
        assert mailboxes(dovecot) == dict.fromkeys(range(300), 1)
        with dovecot.mailbox(USERS[0]) as imap:
            imap.store("1:50", "+FLAGS", r"(\Deleted)")
            imap.expunge()
            imap.store("1:*", "+FLAGS", r"(\Seen)")
    spool.assert_equal()
    spool.down()
    assert spool.compare() == []
    with on_a_copy_of_the_replica(spool, form) as dovecot:
        assert len(mailboxes(dovecot)) == 250


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_no_message_is_lost_when_the_primary_is_killed(spool, form):
    chance, begin = random.Random(form), 0
    acknowledged, possible = set(), set()
    for _ in range(4):
        numbers = range(begin, begin + 3000)
        begin += 3000
        with Dovecot(spool.base / f"dovecot{begin}", spool.dir, form) as dovecot:
            deliveries = Deliveries(dovecot, USERS, numbers).start()
            time.sleep(0.3 + chance.random())
            chance.choice((spool.kill_primary, spool.kill_all))()
            deliveries.waiting = iter(())
            deliveries.join(60)
        acknowledged |= deliveries.acknowledged.keys()
        possible |= {number for number, _, _ in deliveries.refused} | acknowledged
        spool.up()
        drop_locks(spool.dir)
        with Dovecot(spool.base / f"dovecot{begin}after", spool.dir, form) as dovecot:
            found = mailboxes(dovecot)
        assert acknowledged <= found.keys(), f"lost: {sorted(acknowledged - found.keys())[:20]}"
        assert found.keys() <= possible
        spool.wait("in-sync")
        spool.assert_equal()
    assert len(acknowledged) > 100


@pytest.mark.parametrize("form", FORMS)
def test_every_message_acknowledged_is_on_the_standby_when_all_is_dead(spool, form):
    with Dovecot(spool.base / "dovecot", spool.dir, form) as dovecot:
        deliveries = Deliveries(dovecot, USERS, range(5000)).start()
        time.sleep(1.5)
        spool.kill_all()
        deliveries.waiting = iter(())
        deliveries.join(60)
    assert deliveries.acknowledged
    spool.run("standby", spool.name, "--once", "--tail")
    with on_a_copy_of_the_replica(spool, form) as dovecot:
        assert deliveries.acknowledged.keys() <= mailboxes(dovecot).keys()
    spool.up()
    spool.wait("in-sync")
    spool.assert_equal()


def uids_of(imap):
    _, (listed,) = imap.uid("SEARCH", "ALL")
    return list(map(int, listed.split()))


@pytest.mark.parametrize("transport", ["io_uring", "dev"])
def test_no_message_is_lost_from_the_index_while_flags_change(make_volume, transport):
    """Dovecot lists `cur` whenever it has changed, and takes what it does not find for expunged; what
    comes back later has a new UID.
    """
    spool = make_volume(transport=transport)
    shutil.chown(spool.dir, OWNER, OWNER)
    spool.start()
    count, others, user = 500, 500, USERS[0]
    with Dovecot(spool.base / "dovecot", spool.dir) as dovecot:
        cur = spool.dir / user / "maildir" / "cur"
        dovecot.deliver(user, compose(0))
        for number in range(1, count + others):
            path = cur / f"1700000000.M{number}P1.mail.example.org:2,"
            path.write_bytes(compose(number))
            shutil.chown(path, OWNER, OWNER)
        with dovecot.mailbox(user) as imap:
            expected = uids_of(imap)
        assert len(expected) == count + others

        end = time.monotonic() + LISTING_SECONDS

        def change_flags():
            rng = random.Random(1)
            with dovecot.mailbox(user) as imap:
                while time.monotonic() < end:
                    first = rng.randrange(count - 30)
                    chosen = ",".join(map(str, expected[first : first + 30]))
                    imap.uid("STORE", chosen, rng.choice(["+FLAGS", "-FLAGS"]), r"(\Seen)")

        def list_messages():
            with dovecot.mailbox(user) as imap:
                while time.monotonic() < end:
                    imap.noop()
                    assert uids_of(imap) == expected
                    assert imap.response("EXPUNGE")[1] == [None]

        def list_with_doveadm():
            while time.monotonic() < end:
                dovecot.doveadm("force-resync", "-u", user, "INBOX")
                told = dovecot.doveadm("fetch", "-u", user, "uid", "mailbox", "INBOX")
                assert list(map(int, re.findall(r"uid: (\d+)", told))) == expected

        def change_flags_elsewhere():
            """As other programs on the same Maildir do."""
            rng = random.Random(2)
            while time.monotonic() < end:
                number = rng.randrange(count, count + others)
                plain = cur / f"1700000000.M{number}P1.mail.example.org:2,"
                names = plain, f"{plain}S"
                os.rename(*names), os.rename(*reversed(names))

        work = [change_flags, change_flags_elsewhere, list_messages, list_with_doveadm]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for task in [pool.submit(each) for each in work]:
                task.result()
        with dovecot.mailbox(user) as imap:
            assert uids_of(imap) == expected
        assert dovecot.complaints() == ""
    spool.assert_equal()


def test_deliveries_go_on_while_the_standby_is_killed(spool):
    with Dovecot(spool.base / "dovecot", spool.dir) as dovecot:
        deliveries = Deliveries(dovecot, USERS, range(600)).start()
        while any(thread.is_alive() for thread in deliveries.threads):
            time.sleep(0.4)
            os.kill(
                spool.wait_until(lambda status: status["standbys"][0]["pid"], "a standby")[
                    "standbys"
                ][0]["pid"],
                9,
            )
        assert len(deliveries.acknowledged) == 600 and not deliveries.refused, dovecot.complaints()
        assert mailboxes(dovecot) == dict.fromkeys(range(600), 1)
    spool.wait("in-sync")
    spool.assert_equal()
