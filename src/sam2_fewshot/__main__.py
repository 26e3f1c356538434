"""The program: ``sam2-fewshot``, and ``python -m sam2_fewshot``."""


def main() -> None:
    """Run the command line, and end in a sentence where Ctrl-C comes before its commands, which have their own."""
    try:
        from sam2_fewshot.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        raise SystemExit("Error: Stopped.") from None


if __name__ == "__main__":
    main()
