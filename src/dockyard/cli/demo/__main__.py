import sys

from dockyard.cli.demo.story import main

sys.exit(main())
