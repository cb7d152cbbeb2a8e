"""One step of RLPrompt against a plain re-implementation of the published step.

``make bench`` prints a table and writes ``figures/bench_rlprompt.json``. Both say 16 prompts of 5
tokens from the published start, reward each on 32 texts, and take one step of Adam down the soft
Q-learning losses. The plain one does it as the published code does: the policy says a token at a
time with the LM's cache, and all its states are computed again for the target network; every
prompt is decoded, put behind every text as a string, and encoded again; one forward pass for each
prompt over padded rows gives logits of the whole vocabulary at every position; nothing is
remembered. From that start nearly all prompts are new, so that ours gains nothing by its memory
either. What the memory gives is in the line "a whole run": the mean step of a run with defaults.

Times are medians over alternated repeats in one process.
"""

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from softlens import Task, load_lm, load_task, tune
from softlens.files import write_json
from softlens.lm import LM
from softlens.lm.transformer import cache_name, pad
from softlens.objectives import Objective
from softlens.tuners.base import Problem
from softlens.tuners.policy import Adaptor
from softlens.tuners.rlprompt import RLPromptOptions, RLPromptTuner
from tests.benchmarks.timing import alternated

PROMPTS, TEXTS, LENGTH, WIDTH, TOP_K = 16, 32, 5, 2048, 256
GROUNDS = {"organism": ("organism", "sentiment", 60), "real": ("smollm2-135m", "reviews", 12)}


def our_step(lm: LM, task: Task) -> Callable[[], object]:
    """One step of the library's own tuner, the texts' keys and values already known."""
    problem = Problem.encode(lm, task, LENGTH, truncate=False)
    options = RLPromptOptions(start="random", texts=TEXTS, batch_size=TEXTS, learning_rate=5e-5)
    tuner = RLPromptTuner(problem, Objective(problem.setting(), {}), options, 100, seed=0)
    return tuner.step


def plain_step(lm: LM, task: Task) -> Callable[[], object]:
    """One step as the published code takes it."""
    lm.model.set_attn_implementation("sdpa")
    model, tokenizer = lm.model, lm.tokenizer
    generator = torch.Generator().manual_seed(0)
    adaptor = Adaptor(lm.hidden_size, WIDTH, "random", generator)
    target = copy.deepcopy(adaptor).requires_grad_(False)
    adam = torch.optim.Adam(adaptor.parameters(), lr=5e-5)
    words, labels = torch.tensor(task.answer_ids(lm)), torch.tensor(task.train.labels)
    head, every = model.get_output_embeddings(), torch.arange(TEXTS)

    def states(ids: torch.Tensor, cache: object) -> tuple[torch.Tensor, object]:
        name = cache_name(model)
        output = model.base_model(input_ids=ids, use_cache=True, **{name: cache})
        return output.last_hidden_state[:, -1], getattr(output, name)

    def rewards(rows: list[list[int]]) -> torch.Tensor:
        found = []
        for row in rows:
            prompt = str(tokenizer.decode(row)).strip()
            texts = [f"{text} {prompt}" for text in task.train.texts]
            encoded = [[lm.bos_id, *tokenizer(t, add_special_tokens=False)["input_ids"]]
                       for t in texts]  # fmt: skip
            ids, ends = pad(encoded, lm.device), torch.tensor([len(r) for r in encoded])
            mask = (torch.arange(ids.shape[1])[None] < ends[:, None]).long()
            logits = model(input_ids=ids, attention_mask=mask).logits
            shares = logits[every, ends - 1][:, words].float().softmax(dim=-1)
            right = shares[every, labels]
            others = shares.scatter(1, labels[:, None], -1.0).amax(dim=1)
            gap = right - others
            found.append(torch.where(gap > 0, 200 * gap, 180 * gap).mean())
        return torch.stack(found)

    def step() -> None:
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), adaptor.parameters(), strict=True):
                slow.lerp_(fast, 0.001)
        ids, cache, q, said = torch.full((PROMPTS, 1), lm.bos_id), None, [], []
        for _ in range(LENGTH):
            with torch.no_grad():
                state, cache = states(ids, cache)
            q.append(head(adaptor(state)))
            lowest = q[-1].topk(TOP_K).values[:, -1:]
            shares = q[-1].detach().masked_fill(q[-1] < lowest, -torch.inf).softmax(dim=-1)
            ids = torch.multinomial(shares, 1, generator=generator)
            said.append(ids)
        tokens = torch.cat(said, dim=1)
        with torch.no_grad():
            ids, cache, values = torch.full((PROMPTS, 1), lm.bos_id), None, []
            for t in range(LENGTH):
                state, cache = states(ids, cache)
                values.append(head(target(state)).logsumexp(dim=-1))
                ids = tokens[:, t : t + 1]
            points = rewards(tokens.tolist())
        final = 5 * (points - points.mean()) / (points.std(correction=0) + 1e-4)
        logits, v = torch.stack(q, dim=1), torch.stack(values, dim=1)
        advantage = logits.log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]
        onwards = torch.cat([v[:, 1:], final[:, None]], dim=1)
        single = (advantage - (onwards - v)) ** 2
        multi = (advantage.flip(1).cumsum(1).flip(1) - (final[:, None] - v)) ** 2
        adam.zero_grad()
        ((single + multi) / 2).sum(dim=1).mean().backward()
        torch.nn.utils.clip_grad_norm_(adaptor.parameters(), 5.0)
        adam.step()

    return step


def whole_run(lm: LM, task: Task, steps: int) -> float:
    """Seconds a step of a run with defaults, without what a run begins and ends with."""
    run = tune(lm, task, "rlprompt", LENGTH, steps=steps, evaluations_of_dev=1, progress=False)
    return float(run.metrics["seconds"]) / float(run.metrics["steps"])


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures/bench_rlprompt.json"))
    parser.add_argument("--grounds", nargs="+", default=[*GROUNDS], choices=[*GROUNDS])
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()

    results = []
    threads = torch.get_num_threads()
    print(f"{threads} threads, {PROMPTS} prompts x {TEXTS} texts, {LENGTH} tokens, float32 peer")
    for ground in chosen.grounds:
        name, of, steps = GROUNDS[ground]
        task = load_task(of).head(train=TEXTS, dev=TEXTS, test=TEXTS)
        makers: dict[str, Callable[[], object]] = {
            "plain/float32": plain_step(load_lm(name), task),
            "ours/float32": our_step(load_lm(name), task),
        }
        if ground == "real":
            makers["ours/bfloat16"] = our_step(load_lm(name, dtype="bfloat16"), task)
        seconds = alternated(makers, chosen.repeats)
        typical = {key: median(times) for key, times in seconds.items()}
        typical["ours/float32, a whole run"] = whole_run(load_lm(name), task, steps)
        for key, time_a_step in typical.items():
            ratio = typical["plain/float32"] / time_a_step
            results.append({"lm": name, "step": key, "seconds": time_a_step, "ratio": ratio})
            print(f"{name:14s} {key:26s} {time_a_step:8.4f} s a step  {ratio:6.1f} x", flush=True)
    write_json(chosen.out, {"threads": threads, "results": results})
    print(json.dumps({"written": str(chosen.out)}))


if __name__ == "__main__":
    main()
