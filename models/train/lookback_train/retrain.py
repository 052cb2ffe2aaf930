"""Another training of a policy: a decoder for the tower of a sealed bundle.

The tower and its visual tokens stay as the bundle has them, so that several trainings differ in
what chance had to say in the decoder, and in nothing else. They share their lessons, in some of
which the policy of the bundle goes its own way.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from . import examples, idpo, oracle, sft, tokens
from .decoder import Decoder, Shape, between, part
from .export import with_decoder

LESSONS = oracle.TRAIN + 640_000
"""First seed of the lessons."""


def train(
    bundle: Path,
    out: Path,
    work: Path,
    programs: tuple[Path, Path],
    amount: tuple[int, int, int],
    val_episodes: int,
    steps: int,
    seed: int,
    report: int,
    init: Path | None,
    peak: float,
    passive: bool,
    only_lessons: bool = False,
    keep: float = 0.0,
    first_shard: int = 0,
) -> None:
    """Trains a decoder of `seed` for `steps`, from `init` or from nothing; writes and seals `out`.

    `keep` is the share of the bundle `init` in the weights that are written ([`decoder.between`]).

    `programs` are `lookback-oracle` and `lookback-bundle`; `amount` is the number of shards of
    lessons, of those in which the policy goes its own way, and of lessons in each; the first has
    the number `first_shard`. Lessons are kept in `work`, and so is the training, which resumes.
    """
    binary, sealer = programs
    manifest = tomllib.loads((bundle / "bundle.toml").read_text())
    # One tower's features say nothing to another's decoder, nor one policy's ways of another's.
    folder = work / f"lessons-{manifest['parts']['decoder']['blake3'][:12]}"
    sort = "passive" if passive else "active"
    taught, own, each = amount
    if LESSONS + (first_shard + taught + own) * each > idpo.SEEDS:
        raise SystemExit(f"--first-shard {first_shard}: those seeds belong to iDPO; lower it")
    files = (bundle / "bundle.toml", bundle / part(bundle, "chat_template"))
    common = (bundle, binary, files)
    val_folder = folder / f"val-{sort}"
    examples.render_shards(val_folder, *common, oracle.VAL, range(1), val_episodes, passive=passive)
    lessons = (folder / sort, *common, LESSONS)
    renderers = [
        examples.render_in_background(
            *lessons, range(first_shard, first_shard + taught), each, None, passive
        ),
    ]
    if not passive:
        numbers = range(first_shard + taught, first_shard + taught + own)
        renderers.append(examples.render_in_background(*lessons, numbers, each, bundle))
    if only_lessons:
        for renderer in renderers:
            renderer.join()
        return
    tokenizer = tokens.load(bundle / part(bundle, "tokenizer"))
    learnt = work / f"policy-{sort}-{seed}.pt"
    policy = sft.train(
        examples.DataSet(folder / sort, tokenizer),
        examples.DataSet(val_folder, tokenizer),
        Shape.of_manifest(bundle / "bundle.toml"),
        None,
        learnt,
        steps,
        seed,
        report,
        init=init,
        peak=peak,
    )
    for renderer in renderers:
        renderer.terminate()
    decoder = policy.decoder
    if keep > 0.0 and init is not None:
        decoder = between(Decoder.of_bundle(init), decoder, keep)
    with_decoder(bundle, decoder, sealer, out)
