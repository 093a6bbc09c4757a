"""Conditions for records whose making is not asked about."""

from nightshift.records import Code, Conditions

CONDITIONS = Conditions(
    code=Code(version="0.1.0", commit="", sha256="c" * 64),
    packages={"torch": "2.0", "opencv": "5.0"},
    processor="a processor",
    device="cpu",
    precision="float32",
    threads=1,
)
