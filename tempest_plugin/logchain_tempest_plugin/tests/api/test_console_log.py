"""What a user reads of a server's console while the server is migrated.

Each test makes a server of its own, and leaves nothing behind.
"""

import base64
import re
import time

from tempest import config
from tempest import test
from tempest.common import compute
from tempest.common import waiters
from tempest.lib import decorators
from tempest.lib import exceptions
from tempest.lib.common import api_microversion_fixture
from tempest.lib.common.utils import test_utils

from logchain_tempest_plugin import console

CONF = config.CONF

#: Newton's. From it on, a server can be told to have no network.
MICROVERSION = "2.37"

#: It goes on in the background: where a boot waits for this script, it goes on as well.
USER_DATA = """#!/bin/sh
(
  number=0
  while :; do
    number=$((number + 1))
    echo "logchain-tempest $number of a guest" > /dev/console
    sleep 0.2
  done
) &
"""


class ConsoleLogMigrationTest(test.BaseTestCase):
    """The console log follows its server."""

    credentials = ["primary", "admin"]

    @classmethod
    def skip_checks(cls):
        super().skip_checks()
        if not CONF.compute_feature_enabled.live_migration:
            raise cls.skipException("this cloud has no live migration")
        if not CONF.compute_feature_enabled.console_output:
            raise cls.skipException("this cloud does not show consoles")
        if CONF.compute.min_compute_nodes < 2:
            raise cls.skipException("a migration needs two compute nodes")

    @classmethod
    def setup_credentials(cls):
        if CONF.service_available.neutron:
            cls.set_network_resources(network=True, subnet=True)
        super().setup_credentials()

    @classmethod
    def setup_clients(cls):
        super().setup_clients()
        cls.servers = cls.os_primary.servers_client
        cls.admin_servers = cls.os_admin.servers_client
        cls.admin_migrations = cls.os_admin.migrations_client

    def setUp(self):
        super().setUp()
        self.useFixture(
            api_microversion_fixture.APIMicroversionFixture(compute_microversion=MICROVERSION)
        )

    @decorators.idempotent_id("a1d1b8ba-0ce4-4a43-8f0f-1c1f5d7a5e52")
    @decorators.attr(type="multinode")
    def test_console_follows_a_live_migration(self):
        """After a live migration the console starts with what it was before."""
        server = self._server()
        before = self._wait_for_lines(server)
        self._migrate(server)
        self._check_settles(server, before)

    @decorators.idempotent_id("3b7a5a0e-6c3f-4d53-9f4c-2a8a0b1f9f0d")
    @decorators.attr(type="multinode")
    def test_console_follows_every_further_migration(self):
        """The same after a second one and a third one, of which one goes back."""
        server = self._server()
        before = self._wait_for_lines(server)
        for _ in range(3):
            self._migrate(server)
            before = self._check_settles(server, before)

    @decorators.idempotent_id("5e0c2f64-70e1-4d0e-9c4b-6f3c7d1a2b98")
    @decorators.attr(type="multinode")
    def test_console_never_shrinks_while_the_server_moves(self):
        """Whoever reads again and again never reads less than before."""
        server = self._server()
        last = self._wait_for_lines(server)
        source = self._host(server)
        self._begin_migration(server)
        moved_at = None
        reads = 0
        ends = time.monotonic() + CONF.compute.build_timeout
        # Some reads after it has moved, since the history could go as it came.
        while moved_at is None or time.monotonic() < moved_at + 10:
            now = self._read(server)
            console.check_continues(last, now, CONF.logchain.console_bytes)
            last = now
            reads += 1
            if moved_at is None and self._is_at_rest(server):
                self._check_moved(server, source)
                moved_at = time.monotonic()
            if time.monotonic() > ends:
                raise exceptions.TimeoutException(f"the migration has no end; {reads} reads")
        self._check_lines(last)

    def _server(self):
        arguments = {}
        if CONF.logchain.run_user_data:
            arguments["user_data"] = base64.b64encode(USER_DATA.encode()).decode()
            arguments["config_drive"] = True
        network = None
        if CONF.service_available.neutron:
            network = self.get_tenant_network()
        if network is None:
            arguments["networks"] = "none"
        server, _ = compute.create_test_server(
            self.os_primary, tenant_network=network, wait_until="ACTIVE", **arguments
        )
        server = server["id"]
        self.addCleanup(waiters.wait_for_server_termination, self.servers, server)
        self.addCleanup(
            test_utils.call_and_ignore_notfound_exc, self.servers.delete_server, server
        )
        return server

    def _read(self, server):
        return self.servers.get_console_output(server)["output"]

    def _wait_for_lines(self, server):
        """Gives the console as soon as it has enough to tell whether it is lost."""
        wanted = CONF.logchain.lines
        pattern = CONF.logchain.line_pattern or "^.+$"

        def has_lines():
            return len(re.findall(pattern, self._read(server), re.MULTILINE)) >= wanted

        waited = CONF.compute.build_timeout
        if not test_utils.call_until_true(has_lines, waited, 1):
            raise exceptions.TimeoutException(
                f"the console has no {wanted} lines that match {pattern!r} after {waited} s; "
                f"it ends with {self._read(server)[-200:]!r}"
            )
        return self._read(server)

    def _shown(self, server):
        return self.admin_servers.show_server(server)["server"]

    def _host(self, server):
        return self._shown(server)["OS-EXT-SRV-ATTR:host"]

    def _is_at_rest(self, server):
        shown = self._shown(server)
        self.assertNotEqual("ERROR", shown["status"], shown.get("fault"))
        return shown["status"] == "ACTIVE" and not shown["OS-EXT-STS:task_state"]

    def _begin_migration(self, server):
        self.admin_servers.live_migrate_server(server, host=None, block_migration="auto")

    def _migrate(self, server):
        source = self._host(server)
        self._begin_migration(server)
        waited = CONF.compute.build_timeout
        if not test_utils.call_until_true(lambda: self._is_at_rest(server), waited, 1):
            raise exceptions.TimeoutException(f"the migration has no end after {waited} s")
        self._check_moved(server, source)

    def _check_moved(self, server, source):
        if self._host(server) == source:
            migrations = self.admin_migrations.list_migrations()["migrations"]
            migrations = [m for m in migrations if m["instance_uuid"] == server]
            self.fail(f"the server is still on {source}: {migrations}")

    def _check_settles(self, server, before):
        """Waits until the console has all of ``before`` and the guest prints on; gives it."""
        ends = time.monotonic() + CONF.logchain.settle_timeout
        while True:
            now = self._read(server)
            try:
                console.check_continues(before, now, CONF.logchain.console_bytes)
                self._check_lines(now)
                if now != before:
                    return now
                why = "the guest prints nothing more"
            except console.Shrank as problem:
                why = str(problem)
            if time.monotonic() > ends:
                self.fail(f"{CONF.logchain.settle_timeout} s after the migration: {why}")
            time.sleep(1)

    def _check_lines(self, text):
        if CONF.logchain.line_pattern:
            console.check_lines(text, CONF.logchain.line_pattern)
