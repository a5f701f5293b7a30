"""That an installed wheel brings its kernels, and that they agree with torch. Run by hand: it needs mdpot alone."""

import sys

from mdpot.kernels import library, make_kernel
from mdpot.modelfile import open_model

names = library.supported()
if not names:
    sys.exit("the installed mdpot has no kernels")
for name in names:
    library.of(name)
kernel = make_kernel(open_model("water-rpbe-small").potential("cpu"))  # refuses what differs from torch
sys.stdout.write(f"{kernel.instructions} of {', '.join(names)}\n")
