"""Records of under which conditions something was computed, beside its input: they decide its last bits."""

from nightshift.records.data import Record


class Code(Record):
    """Which Nightshift it was."""

    version: str  # of the package
    commit: str  # of git; empty where the package lies in no repository of its own
    sha256: str  # over all Python files of the package, also those that no commit has


class Conditions(Record):
    code: Code
    packages: dict[str, str]  # versions of those whose sums or decoders the result hangs on
    processor: str
    device: str  # kind that torch computed on: cpu, cuda, mps, …
    precision: str  # that torch computed in: float32, bfloat16 or float16
    threads: int  # of each process
    processes: int = 1
    pieces: int = 1  # in which a batch went through the network, as memory allowed
    group: int = 0  # shards of which images were mixed, as memory allowed; 0 where all were
