"""Estimates the peak FLOP/s of a board from what NVML tells: cores, clock, compute capability and name. Pure.

fp32 on CUDA cores is 2 FLOP a core and cycle; torch leaves TF32 off unless told. Dense tensor-core rates are multiples of that,
one for each compute capability, read off NVIDIA's data sheets: peak bf16 with fp32 accumulation ÷ peak fp32.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class PeakFlops:
    """FLOP/s by dtype, dense.

    Example:
        >>> peak_flops("NVIDIA A100-SXM4-80GB", 6912, 1410, (8, 0)).fp32 / 1e12
        19.5
    """

    fp32: float
    bf16: float
    fp16: float

    def of(self, dtype: str) -> float:
        return {"bf16": self.bf16, "fp16": self.fp16}.get(dtype, self.fp32)


_HALF: Final[dict[tuple[int, int], tuple[float, float]]] = {
    (7, 0): (1.0, 8.0),  # V100: 15.7 fp32, 125 fp16; bf16 is emulated
    (7, 5): (1.0, 8.0),  # T4: 8.1, 65
    (8, 0): (16.0, 16.0),  # A100: 19.5, 312
    (8, 6): (4.0, 4.0),  # A10: 31.2, 125; A40: 37.4, 150
    (8, 9): (4.4, 4.4),  # L4: 30.3, 121; L40S: 91.6, 362
    (9, 0): (14.8, 14.8),  # H100 SXM: 67, 989
    (10, 0): (28.0, 28.0),  # B200: 80, 2250
    (12, 0): (4.0, 4.0),  # RTX PRO 6000 Blackwell: 125, 503
}
"""Compute capability → (bf16, fp16) over fp32."""
_GEFORCE: Final = 2.0
"""GeForce boards from Ampere on accumulate in fp32 at half the rate: 3090 35.6 and 71, 4090 82.6 and 165, 5090 105 and 210."""


def peak_flops(
    name: str, cores: int | None, mhz: int | None, capability: tuple[int, int] | None
) -> PeakFlops | None:
    """None where the driver tells no cores or clock."""
    if not cores or not mhz:
        return None
    fp32 = 2.0 * cores * mhz * 1e6
    bf16, fp16 = _multiples(name, capability)
    return PeakFlops(round(fp32, -11), round(fp32 * bf16, -11), round(fp32 * fp16, -11))


def _multiples(name: str, capability: tuple[int, int] | None) -> tuple[float, float]:
    if capability is None or capability < (7, 0):
        return 1.0, 1.0
    known = max(found for found in _HALF if found <= capability)
    bf16, fp16 = _HALF[known]
    if "geforce" in name.casefold() and capability >= (8, 0):
        return _GEFORCE, _GEFORCE
    return bf16, fp16
