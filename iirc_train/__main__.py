"""The entry point of the command ``iirc``; ``python -m iirc_train`` is the same."""

from iirc_train.runtime.lifeline import end_with_lifeline


def main() -> None:
    """Run the command."""
    end_with_lifeline()
    from iirc_train.cli import main as run

    run()


if __name__ == "__main__":
    main()
