"""``python -m sam2_fewshot`` is the command line."""

from sam2_fewshot.cli import main

if __name__ == "__main__":
    main()
