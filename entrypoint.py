"""What NimbusImage's job runner starts in the container."""

import sys

from sam2_fewshot.nimbus.entry import main

if __name__ == "__main__":
    sys.exit(main())
