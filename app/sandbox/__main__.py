"""`python -m app.sandbox`: the simulated providers as a process."""

import argparse
import sys

from app.sandbox.main import run
from app.sandbox.server import die_with_parent


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.sandbox", description="Simulated providers.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4010, help="0 takes a free port (default: 4010)")
    parser.add_argument("--or-free-port", action="store_true", help="take a free port where that one is taken")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting process dies")
    parser.add_argument("--max-file-bytes", type=int, help="instead of every provider's own limit")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    if arguments.die_with_parent:
        die_with_parent()
    try:
        run(arguments.host, arguments.port, arguments.max_file_bytes)
    except OSError as error:
        if not arguments.or_free_port:
            sys.exit(f"sandbox: cannot listen on {arguments.host}:{arguments.port}: {error.strerror}")
        run(arguments.host, 0, arguments.max_file_bytes)
