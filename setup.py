"""Compiles the fused kernels along with the package; all else about it is in pyproject.toml.

Where that fails, for want of a compiler say, mdpot is installed without them, and torch does their work. With
MDPOT_BUILD_KERNELS=required it is an error instead; with =off nothing is compiled.
"""

from __future__ import annotations

import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# Not imported by its name: mdpot's requirements are not there yet.
_spec = spec_from_file_location("kernels_build", Path(__file__).parent / "mdpot" / "kernels" / "build.py")
assert _spec is not None
assert _spec.loader is not None
build = module_from_spec(_spec)
_spec.loader.exec_module(build)

WISH = os.environ.get("MDPOT_BUILD_KERNELS", "auto")
SETS = [] if WISH == "off" else build.instruction_sets()


class BuildKernels(build_ext):
    """Each extension is a shared library for one instruction set, loaded by ctypes; Python cannot import it."""

    def get_ext_filename(self, fullname: str) -> str:
        *package, instructions = fullname.split(".")
        return os.path.join(*package, build.file_name(instructions))

    def build_extension(self, ext: Extension) -> None:
        try:
            build.compile_library(ext.name.rpartition(".")[2], Path(self.get_ext_fullpath(ext.name)))
        except build.NotBuilt as error:
            raise CompileError(f"the fused kernels were not built: {error}") from None


class PlatformWheel(bdist_wheel):
    """One wheel a platform, for every version of Python; without kernels, one wheel for all."""

    def get_tag(self) -> tuple[str, str, str]:
        kernels = self.get_finalized_command("build_ext")
        built = any(Path(kernels.get_ext_fullpath(ext.name)).is_file() for ext in kernels.extensions or [])
        return "py3", "none", super().get_tag()[2] if built else "any"


setup(
    ext_modules=[Extension(f"mdpot.kernels.{name}", [], optional=WISH != "required") for name in SETS],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
