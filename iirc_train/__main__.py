"""The entry point of the command ``iirc``; ``python -m iirc_train`` is the same."""

import os

from iirc_train.runtime.lifeline import end_with_lifeline


def main() -> None:
    """Run the command."""
    # Training and decoding share the CPU cores: threads that spin while they wait would starve the
    # others. The threading library reads this once, when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    end_with_lifeline()
    from iirc_train.cli import main as run

    run()


if __name__ == "__main__":
    main()
