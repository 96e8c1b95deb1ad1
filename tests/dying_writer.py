"""A training that is killed while it writes a checkpoint.

python -m tests.dying_writer CONFIG SHARE

trains stage 1, and kills itself when the second epoch's ``last`` has this share of its bytes in its temporary file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import tests.conftest  # noqa: F401  one thread, no network
import trainViT
from Utils.training import checkpoint


def main() -> int:
    config, share = sys.argv[1], float(sys.argv[2])
    write = checkpoint.save_file

    def write_and_die(tensors: Any, path: Path, metadata: Any) -> None:
        write(tensors, path, metadata)
        header = json.loads(metadata[checkpoint.HEADER_KEY])
        if path.name.startswith(".last") and header["progress"]["epoch"] == 2:
            content = path.read_bytes()
            path.write_bytes(content[: int(share * len(content))])
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.save_file = write_and_die
    return trainViT.main(["--config", config])


if __name__ == "__main__":
    sys.exit(main())
