"""The entry point by which Tempest finds the tests."""

import os

from tempest.test_discover import plugins

from logchain_tempest_plugin import config


class LogchainTempestPlugin(plugins.TempestPlugin):
    """Tests for the console log of servers that are migrated."""

    def load_tests(self):
        here = os.path.dirname(os.path.abspath(__file__))
        return os.path.join(here, "tests"), os.path.dirname(here)

    def register_opts(self, conf):
        conf.register_group(config.group)
        conf.register_opts(config.options, group=config.group)

    def get_opt_lists(self):
        return [(config.group.name, config.options)]
