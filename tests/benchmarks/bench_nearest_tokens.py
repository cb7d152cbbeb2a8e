"""Nearest tokens of 20 vectors among the 49,152 of SmolLM2-135M against the usual ways.

``python -m tests.benchmarks.bench_nearest_tokens`` prints a table and writes
``figures/bench_nearest_tokens.json``. The peers are what users paste: `torch.cdist` for l2,
`torch.nn.functional.cosine_similarity` and a product with rows normalised anew (as
sentence-transformers' `semantic_search` does) for cosine, each followed by `topk`. Ours
includes everything up to the finished table. Medians of alternated repeats in one process.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from softlens import NearestTokens, load_lm, nearest_tokens
from softlens.files import write_json
from tests.benchmarks.timing import alternated

K = 5


def cdist(vectors: Tensor, table: Tensor) -> Tensor:
    """Euclidean distance, as torch offers it."""
    return torch.cdist(vectors, table).topk(K, largest=False).indices


def normalised_anew(vectors: Tensor, table: Tensor) -> Tensor:
    """Both sides normalised at each call, then one product."""
    return (normalize(vectors, dim=1) @ normalize(table, dim=1).T).topk(K).indices


def row_by_row(vectors: Tensor, table: Tensor) -> Tensor:
    """A loop over positions, as notebooks have it."""
    return torch.stack([cosine_similarity(v[None], table).topk(K).indices for v in vectors])


PEERS: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "torch.cdist": ("l2", cdist),
    "normalise + product": ("cosine", normalised_anew),
    "cosine_similarity loop": ("cosine", row_by_row),
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures/bench_nearest_tokens.json"))
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=15)
    chosen = parser.parse_args()
    lm = load_lm("smollm2-135m")
    generator = torch.Generator().manual_seed(0)
    # Like trained soft prompts: token rows that have moved.
    rows = torch.randint(100, lm.vocab_size, (chosen.length,), generator=generator)
    noise = torch.randn(chosen.length, lm.hidden_size, generator=generator)
    vectors = lm.embedding[rows] + 0.1 * noise

    results = []
    for name, (metric, peer) in PEERS.items():

        def ours(metric: str = metric) -> NearestTokens:
            return nearest_tokens(lm, vectors, k=K, metric=metric, exclude=None)

        def theirs(peer: Callable[[Tensor, Tensor], Tensor] = peer) -> Tensor:
            return peer(vectors, lm.embedding)

        times = alternated({"ours": ours, "peer": theirs}, chosen.repeats)
        ratios = sorted(p / o for p, o in zip(times["peer"], times["ours"], strict=True))
        same = float(torch.tensor(ours().token_ids).eq(theirs()[:, 0]).float().mean())
        row = {
            "metric": metric,
            "peer": name,
            "milliseconds": 1e3 * median(times["ours"]),
            "peer_milliseconds": 1e3 * median(times["peer"]),
            "ratio": median(ratios),
            "ratio_low": ratios[0],
            "ratio_high": ratios[-1],
            "same_nearest": same,
        }
        results.append(row)
        print(
            f"{metric:6s} ours {row['milliseconds']:6.1f} ms  {name:22s} "
            f"{row['peer_milliseconds']:6.1f} ms  ratio {row['ratio']:.1f} "
            f"({row['ratio_low']:.1f} to {row['ratio_high']:.1f})  same nearest {same:.0%}",
            flush=True,
        )
    write_json(
        chosen.out,
        {"threads": torch.get_num_threads(), "length": chosen.length, "k": K, "results": results},
    )


if __name__ == "__main__":
    main()
