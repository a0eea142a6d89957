import enum
from typing import TypedDict

class BuildInfo(TypedDict):
    version: str
    compiler: str
    build_type: str
    simd_levels: list[str]
    torch: str
    torch_cuda: str | None
    cuda_compiler: str | None
    cuda_kernels: bool
    cuda_architectures: list[str]

def build_info() -> BuildInfo: ...
def default_settings(*, single: bool) -> Settings: ...

class Status(enum.IntEnum):
    SOLVED = 0
    SOLVED_INACCURATE = 1
    PRIMAL_INFEASIBLE = 2
    DUAL_INFEASIBLE = 3
    MAX_ITERATIONS = 4
    NUMERICAL_ERROR = 5
    INVALID_INPUT = 6
    NOT_CONVEX = 7

class Settings:
    def __init__(
        self,
        *,
        eps_abs: float = ...,
        eps_rel: float = ...,
        max_iter: int = ...,
        polish: bool = ...,
        best_iterate: bool = ...,
    ) -> None: ...
    @property
    def eps_abs(self) -> float: ...
    @property
    def eps_rel(self) -> float: ...
    @property
    def max_iter(self) -> int: ...
    @property
    def polish(self) -> bool: ...
    @property
    def best_iterate(self) -> bool: ...
    def validate(self) -> str | None: ...
