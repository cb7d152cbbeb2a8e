"""How much memory is taken while something runs."""

import threading

import psutil
import torch

from softlens.lm import LM


class MemoryWatch:
    """The most memory that is taken while it watches."""

    EVERY_SECONDS = 0.005

    def __init__(self, lm: LM) -> None:
        self._lm, self._process = lm, psutil.Process()
        self._on_gpu = lm.device.type == "cuda"
        self._stop = threading.Event()
        if self._on_gpu:
            # What torch keeps for later is free to be taken, too.
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(lm.device)
        self.peak = self._now()
        self.ceiling = self.peak + (
            torch.cuda.mem_get_info(lm.device)[0]
            if self._on_gpu
            else psutil.virtual_memory().available
        )

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, self._now())
        self.cached = self._lm.cache.used

    def _now(self) -> int:
        if self._on_gpu:
            return int(torch.cuda.max_memory_allocated(self._lm.device))
        return int(self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._stop.wait(self.EVERY_SECONDS):
            self.peak = max(self.peak, self._now())
