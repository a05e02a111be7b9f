"""`python -m controller` is `fsm`."""

from controller.cli import main

main()
