"""`python -m iwae.report`."""

import sys

from iwae.report.tables import main

if __name__ == "__main__":
    sys.exit(main())
