"""What an operator can set in the section ``[logchain]`` of ``tempest.conf``."""

from oslo_config import cfg

group = cfg.OptGroup(name="logchain", title="The console log after a live migration")

options = [
    cfg.BoolOpt(
        "run_user_data",
        default=True,
        help="Have each server print numbered lines to its console, by a shell script in its "
        "user data, which it gets on a config drive. The image must run such scripts "
        "(cirros does, and whatever has cloud-init). Set it to false where the image prints by "
        "itself.",
    ),
    cfg.StrOpt(
        "line_pattern",
        default=r"^logchain-tempest (\d+) of a guest",
        help="A regular expression for a numbered line of the console; its first group is the "
        "number. The default is what the user data prints. If it is empty, no lines are counted, "
        "and the console is only compared with what it was.",
    ),
    cfg.IntOpt(
        "console_bytes",
        default=100 * 1024,
        min=1024,
        help="How many bytes of a console log Nova returns at the most: MAX_CONSOLE_BYTES in "
        "its libvirt driver.",
    ),
    cfg.IntOpt(
        "lines",
        default=20,
        min=1,
        help="How many lines a console must have before its server is migrated.",
    ),
    cfg.IntOpt(
        "settle_timeout",
        default=60,
        min=0,
        help="How many seconds after a migration the console must be complete at the latest.",
    ),
]
