"""`python -m molmo2_assets.cli`, for when the script is not on the path."""

import sys

from molmo2_assets.cli import main

sys.exit(main())
