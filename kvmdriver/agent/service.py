"""``kvmdriver-agent``: the agent as a service."""

import logging
import os
import sys
import warnings

# oslo.messaging and futurist still load eventlet where it is installed, which complains aloud.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")

from oslo_service import backend  # noqa: E402 the backend comes before all that could choose one

backend.init_backend(backend.BackendType.THREADING)

from oslo_config import cfg  # noqa: E402
from oslo_log import log  # noqa: E402
from oslo_service import service  # noqa: E402

from kvmdriver import conf as options  # noqa: E402
from kvmdriver import exception  # noqa: E402
from kvmdriver.agent import transport as bus  # noqa: E402
from kvmdriver.agent.notifications import Notifier  # noqa: E402
from kvmdriver.agent.server import AgentServer, load_driver  # noqa: E402

LOG = logging.getLogger(__name__)


class AgentService(service.Service):
    """Runs an ``AgentServer`` in the worker process of oslo.service."""

    def __init__(self, conf: cfg.ConfigOpts):
        super().__init__()
        self._conf = conf
        self._server: AgentServer | None = None

    def start(self) -> None:
        # Everything with threads is made here, after the fork.
        self._server = AgentServer(self._conf, bus.rpc_transport(self._conf), Notifier(self._conf))
        self._server.start()
        LOG.info("agent %s serves topic %s", self._conf.kvm_agent.host, self._conf.kvm_agent.topic)

    def stop(self, graceful: bool = False) -> None:
        if self._server is not None:
            self._server.stop()
        super().stop(graceful)


def main() -> int:
    """Run the agent until it is told to stop."""
    # Others shall not read the log; QEMU's user must pass through new directories.
    os.umask(0o026)
    conf = options.register_opts(cfg.CONF)
    log.register_options(conf)
    conf(sys.argv[1:], project="kvmdriver", prog="kvmdriver-agent")
    log.setup(conf, "kvmdriver")
    try:
        load_driver(conf)
    except exception.KVMDriverError as error:
        sys.stderr.write(f"{error.describe()}\n")
        return 1
    launcher = service.launch(conf, AgentService(conf), restart_method="mutate")
    return launcher.wait() or 0


if __name__ == "__main__":
    sys.exit(main())
