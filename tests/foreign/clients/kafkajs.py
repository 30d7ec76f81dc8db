"""KafkaJS: JavaScript, and the oldest Produce and Fetch versions still sent."""

import os

from harness import paths

from .daemon import Daemon, DaemonClient


class KafkaJs(DaemonClient):
    """kafkajs, newest, with the codecs that its users add."""

    name = "kafkajs"
    lacks = {
        "sticky": "KafkaJS has its own assigner only",
        "static": "KafkaJS has no static members",
        "null_header": "KafkaJS cannot send a header without a value",
        "incremental_configs": "KafkaJS only has AlterConfigs, which replaces all settings",
        "commit_outside": "KafkaJS commits for others through the administration client, which asks for an inactive group",
        "client_side_limit": "KafkaJS has no limit of its own on a request",
        "reset_none": "KafkaJS always resets an offset that is out of range",
    }

    # How often a request is tried again; KafkaJS itself says 5, with longer pauses.
    retries = 3

    def _spawn(self):
        script = paths.FOREIGN / "kafkajs" / "daemon.js"
        return Daemon(["node", str(script), self.address, str(self.retries)], os.environ | {"NODE_PATH": str(paths.NODE_MODULES)})
