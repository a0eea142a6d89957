"""The check of the kernels' registers, stack and shared memory, on what cuobjdump prints."""

import importlib.util
import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "cpp" / "cuda"
SPEC = importlib.util.spec_from_file_location("kernel_resources", FOLDER / "resources.py")
resources = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(resources)

SOLVE = "_ZN7torchqp4cuda50_GLOBAL__N__db0d_17_narrow_kernels_cu_ad0212solve_kernelINS0_"
SOLVE += "10NarrowTeamEdfEEvNS_12ProblemBatchIT1_EENS_8SettingsE"
GRADIENT = "_ZN7torchqp4cuda56_GLOBAL__N__3d_17_gradient_batch_cu_fd15gradient_kernelIfEEvNS_13G"
LPGD = "_ZN7torchqp4cuda52_GLOBAL__N__1f_13_lpgd_batch_cu_a316lpgd_move_kernelIdEEvNS_9LpgdBatch"
TEXT = f"""
arch = sm_80
Resource usage:
 Common:
  GLOBAL:0
 Function {SOLVE}:
  REG:255 STACK:640 SHARED:0 LOCAL:0 CONSTANT[0]:3344 TEXTURE:0
 Function {GRADIENT}:
  REG:32 STACK:0 SHARED:16 LOCAL:0 CONSTANT[0]:708 TEXTURE:0
 Function {LPGD}:
  REG:40 STACK:0 SHARED:0 LOCAL:0 TEXTURE:0
arch = sm_90
 Function _Z5otherv:
  REG:9 STACK:0 SHARED:0 LOCAL:0 TEXTURE:0
"""
RETRY = "solve_kernel<NarrowTeam, double, float>"
USAGE = {
    "sm_80": {
        RETRY: {"registers": 255, "stack": 640, "shared": 0},
        "gradient_kernel<float>": {"registers": 32, "stack": 0, "shared": 16},
        "lpgd_move_kernel<double>": {"registers": 40, "stack": 0, "shared": 0},
    }
}


def changed(**numbers):
    copy = json.loads(json.dumps(USAGE))
    copy["sm_80"][RETRY] |= numbers
    return copy


def test_kernels_are_read_by_architecture_and_name():
    assert resources.parse(TEXT) == (USAGE, ["_Z5otherv"])


def test_growth_of_more_than_a_tenth_is_found():
    assert resources.complaints(changed(stack=704), USAGE) == []
    assert resources.complaints(changed(registers=100), USAGE) == []
    for key, value in {"stack": 705, "registers": 281, "shared": 1}.items():
        assert len(resources.complaints(changed(**{key: value}), USAGE)) == 1


def test_kernels_of_one_side_alone_are_found():
    fewer = {"sm_80": {RETRY: USAGE["sm_80"][RETRY]}}
    assert "has no budget" in resources.complaints(USAGE, fewer)[0]
    assert "was not built" in resources.complaints(fewer, USAGE)[0]
    assert resources.complaints({"sm_86": {}}, USAGE) == []


def test_the_budget_is_for_the_architectures_that_are_tested():
    kernels = json.loads((FOLDER / "budget.json").read_text())["kernels"]
    assert set(kernels) == {"sm_80", "sm_90"}
    assert {len(names) for names in kernels.values()} == {25}
