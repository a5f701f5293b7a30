"""Units. Inside mdpot everything is in eV, Å, fs and K; a quantity in another unit is multiplied at the door.

`positions * BOHR` turns bohr into Å, `energy / KJ_PER_MOL` turns eV into kJ/mol. CODATA 2018.
"""

HARTREE = 27.211386245988  # eV
BOHR = 0.529177210903  # Å
HARTREE_PER_BOHR = HARTREE / BOHR  # eV/Å
KCAL_PER_MOL = 0.04336410390059322  # eV
KJ_PER_MOL = KCAL_PER_MOL / 4.184  # eV
NM = 10.0  # Å
BOLTZMANN = 8.617333262e-5  # eV/K
MEV = 1e-3  # eV
GPA = 1.0 / 160.21766208  # eV/Å^3
BAR = 1e-4 * GPA  # eV/Å^3
AMU_A2_PER_FS2 = 103.642696562  # eV: kinetic energy of 1 u moving at 1 Å/fs is half of this
