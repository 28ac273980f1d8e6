"""oslo.privsep's helper, which ends without an error when the agent has gone.

oslo.privsep's own program logs to the agent that the agent has gone. That fails, so that it would
end with a traceback, and its unit as failed, whenever the agent ends.
"""

import os
import warnings

# oslo.privsep still loads eventlet where it is installed, which complains aloud
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")

from oslo_privsep import daemon  # noqa: E402


def main() -> None:
    """Serve the caller as ``privsep-helper`` does, with the same arguments."""
    process = os.getpid()
    try:
        daemon.helper_main()
    except OSError as error:
        # the process that has not forked yet has no caller that could go
        if os.getpid() == process or not has_hung_up(error):
            raise


def has_hung_up(error: BaseException | None) -> bool:
    """Whether an error, and all that it came from, say that the other side has gone."""
    while error is not None:
        if not isinstance(error, BrokenPipeError | ConnectionResetError | StopIteration):
            return False
        error = error.__context__
    return True


if __name__ == "__main__":
    main()
