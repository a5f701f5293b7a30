"""`python -m mdpot.kernels`: compile the kernels of this machine."""

from mdpot.kernels.build import main

main()
