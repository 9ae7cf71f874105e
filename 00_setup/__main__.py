"""`python -m tiny_transformer.setup`: is this machine ready for the course?"""

import sys

from tiny_transformer.setup.environment import main

if __name__ == "__main__":
    sys.exit(main())
