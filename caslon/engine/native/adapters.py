"""Adapters in the order in which the kernels read them: each layer's additions, one after the other."""

import ctypes
import weakref
from array import array
from collections import defaultdict

from torch import Tensor

from caslon.engine.adapters import Adapter
from caslon.engine.native.library import AdaptedRows, Addition
from caslon.engine.scheduler import StepPlan

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class PackedAdapter:
    """The additions of an adapter, and the memory they point into."""

    def __init__(self, adapter: Adapter, layers: int) -> None:
        self._kept: list[Tensor] = []
        by_layer: dict[int, list[Addition]] = defaultdict(list)
        for path, part in adapter.parts.items():
            _, _, layer, _, name = path.split(".")  # model.layers.N.self_attn.q_proj
            a, b = part.down.float().contiguous(), part.up.float().T.contiguous()
            self._kept += [a, b]
            by_layer[int(layer)].append(
                Addition(TARGETS.index(name), a.shape[0], part.scaling, a.data_ptr(), b.data_ptr())
            )
        ordered = [addition for number in range(layers) for addition in by_layer[number]]
        self.additions = (Addition * len(ordered))(*ordered)
        firsts = [0]
        for number in range(layers):
            firsts.append(firsts[-1] + len(by_layer[number]))
        self.firsts = array("i", firsts)


class PackedAdapters:
    """Adapters that have been used, packed, for as long as the engine has them."""

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._packed: weakref.WeakKeyDictionary[Adapter, PackedAdapter] = weakref.WeakKeyDictionary()

    def rows_of(self, plan: StepPlan) -> dict[Adapter, "array[int]"]:
        """Return which rows of a step each adapter adds to."""
        rows: dict[Adapter, array[int]] = {}
        row = 0
        for chunk in plan:
            end = row + chunk.end - chunk.start
            if chunk.sequence.adapter is not None:
                rows.setdefault(chunk.sequence.adapter, array("i")).extend(range(row, end))
            row = end
        return rows

    def structure_of(self, adapter: Adapter, rows: "array[int]") -> AdaptedRows:
        """Return the structure that says to add an adapter to rows, which must outlive it."""
        packed = self._packed.get(adapter)
        if packed is None:
            packed = self._packed[adapter] = PackedAdapter(adapter, self._layers)
        address = ctypes.addressof(packed.additions)
        return AdaptedRows(rows.buffer_info()[0], len(rows), packed.firsts.buffer_info()[0], address)
