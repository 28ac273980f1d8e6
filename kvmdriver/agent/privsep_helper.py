"""oslo.privsep's helper, which ends without an error when the agent has gone.

oslo.privsep's own program logs to the agent that the agent has gone. That fails, so that it would
end with a traceback, and its unit as failed, whenever the agent ends.
"""

import os
import sys
import warnings

# oslo.privsep still loads eventlet where it is installed, which complains aloud
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")

from oslo_privsep import daemon  # noqa: E402

# The configuration is the agent's, and so is the log that it names: the helper's unit cannot write to
# it, and root would make files there that the agent cannot write to. What the helper says goes to the
# agent, and to standard error before it has connected. An option counts for more than a file before it.
_NO_FILES = ("--log-file=", "--log-dir=", "--log-config-append=")


def main() -> None:
    """Serve the caller as ``privsep-helper`` does, with the same arguments, and open no log."""
    sys.argv += _NO_FILES
    process = os.getpid()
    try:
        daemon.helper_main()
    except OSError as error:
        # the process that has not forked yet has no caller that could go
        if os.getpid() == process or not has_hung_up(error):
            raise


def has_hung_up(error: BaseException | None) -> bool:
    """Return whether an error, and all that it came from, say that the other side has gone."""
    while error is not None:
        if not isinstance(error, BrokenPipeError | ConnectionResetError | StopIteration):
            return False
        error = error.__context__
    return True


if __name__ == "__main__":
    main()
