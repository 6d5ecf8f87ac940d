"""What is promised: of what was measured, the figures, their floors and their bars."""

from collections.abc import Iterator

from bench.figures import Figure, middle
from bench.plan import Plan
from bench.programs import Result


def vault_figures(plan: Plan, rounds: list[Result]) -> Iterator[Figure]:
    first = middle(r["first"]["seconds"] for r in rounds)
    floor = middle(r["floor_first"]["seconds"] for r in rounds)
    quiet = middle(r["quiet"]["seconds"] for r in rounds)
    quiet_floor = middle(r["floor_quiet"]["seconds"] for r in rounds)
    n = f"{plan.secrets:,}"
    yield Figure(
        f"first import of {n}",
        f"{first:.1f} s",
        f"{floor:.1f} s",
        first / floor,
        1.5,
        rounds=tuple(r["first"]["seconds"] / r["floor_first"]["seconds"] for r in rounds),
    )
    yield Figure(
        f"quiet cycle over {n}",
        f"{quiet:.2f} s",
        f"{quiet_floor:.2f} s",
        quiet / quiet_floor,
        1.5,
        rounds=tuple(r["quiet"]["seconds"] / r["floor_quiet"]["seconds"] for r in rounds),
    )
    reads = max(r["quiet"]["calls"]["read"] for r in rounds)
    lists = max(r["quiet"]["calls"]["list"] for r in rounds)
    yield Figure("  its value reads", f"{reads}, and {lists} list calls", "", reads, 0)
    for key, words, bar in (
        ("as_written_s", "times faster than the guide's script", 100),
        ("one_client_s", "times faster than it with one client", 6),
    ):
        script = middle(r["script"][key] for r in rounds) * plan.secrets
        yield Figure(
            words, f"{first:.1f} s", f"{script:,.0f} s from a sample", script / first, bar, True
        )


def million_figures(plan: Plan, rounds: list[Result]) -> Iterator[Figure]:
    n = f"{plan.million:,}"
    quiet = middle(r["large"]["quiet"]["seconds"] for r in rounds)
    floor = middle(r["floor"]["seconds"] for r in rounds)
    yield Figure(
        f"quiet cycle over {n}",
        f"{quiet:.1f} s",
        f"{floor:.1f} s",
        quiet / floor,
        3,
        rounds=tuple(r["large"]["quiet"]["seconds"] / r["floor"]["seconds"] for r in rounds),
    )
    peak = middle(r["large"]["quiet"]["peak_mb"] for r in rounds)
    less = middle(r["smaller"]["quiet"]["peak_mb"] for r in rounds)
    yield Figure("  its peak memory, MB", f"{peak:.0f} MB", "", peak, 150)
    yield Figure(
        f"  beside that of {plan.tenth:,}", f"{peak:.0f} MB", f"{less:.0f} MB", peak / less, 1.2
    )
    above = middle(
        r["large"]["changed"]["seconds"] - r["large"]["quiet"]["seconds"] for r in rounds
    )
    alone = middle(
        r["alone"]["changed"]["seconds"] - r["alone"]["quiet"]["seconds"] for r in rounds
    )
    yield Figure(
        f"1 % of {n} changed, above quiet",
        f"{above:.1f} s",
        f"{alone:.1f} s for them alone",
        above / alone,
        1.3,
    )


def small(found: Result) -> Iterator[Figure]:
    size, start = found["bytes"], found["help_s"]
    yield Figure("bytes a secret with ten versions", f"{size:,.0f} B", "", size, 10_000)
    if "one_bytes" in found:
        one, run = found["one_bytes"], found["run_bytes"]
        yield Figure("  with one version", f"{one:,.0f} B", "", one, None)
        more = (size - one) / 9
        yield Figure("  each version beyond it", f"{more:,.0f} B", "", more, None)
        yield Figure("bytes a quiet run, its event included", f"{run:,.0f} B", "", run, None)
    yield Figure("svsync --help, s", f"{start:.2f} s", "", start, 0.3)


def service(plan: Plan, found: Result) -> Iterator[Figure]:
    many, idle = found["many"], found["idle"]
    n = f"{plan.backends:,} backends at 30 s"
    yield Figure(f"{n}, due to start, p99", f"{many['p99_s']:.2f} s", "", many["p99_s"], 1.5)
    yield Figure("  its share of a core", f"{many['cores']:.2f}", "", many["cores"], 0.6)
    yield Figure("svsync serve, idle, MB", f"{idle['idle_mb']:.0f} MB", "", idle["idle_mb"], 90)
    yield Figure("  ready after, s", f"{idle['ready_s']:.2f} s", "", idle["ready_s"], 1.5)


def webhooks(rounds: list[Result]) -> Iterator[Figure]:
    for name, words, beside in (
        ("many", "webhook deliveries a second, 8 backends to one receiver", "8 at a time"),
        ("one", "  of one backend, one after the other", "the same"),
    ):
        seen = middle(r[name]["per_second"] for r in rounds)
        floor = middle(r[f"floor_{name}"]["per_second"] for r in rounds)
        yield Figure(words, f"{seen:,.0f}/s", f"{floor:,.0f}/s {beside}", seen, 500, True)
    for key, words, bar in (
        ("p50_s", "event to nine receivers beside one that hangs, p50", 1.25),
        ("p99_s", "  p99", 1.5),
    ):
        seen = middle(r["hanging"][key] for r in rounds)
        floor = middle(r["well"][key] for r in rounds)
        yield Figure(
            words,
            f"{seen * 1000:.0f} ms",
            f"{floor * 1000:.0f} ms, none hangs",
            seen / floor,
            bar,
            rounds=tuple(r["hanging"][key] / r["well"][key] for r in rounds),
        )


def replicas(plan: Plan, rounds: list[Result]) -> Iterator[Figure]:
    for distance, words, bar in (
        (
            "distant",
            f"cycles a minute, three replicas to one; answers after {plan.distant_s:g} s",
            1,
        ),
        # Where no time at all is waited, one process and its database fill two cores.
        ("at_once", "  the same, answers at once", None),
    ):
        pairs = [
            (r[f"{distance}_3"]["per_minute"], r[f"{distance}_1"]["per_minute"]) for r in rounds
        ]
        three, one = (middle(pair[at] for pair in pairs) for at in (0, 1))
        yield Figure(
            words,
            f"{three:,.0f}",
            f"{one:,.0f}",
            three / one,
            bar,
            True,
            rounds=tuple(three / one for three, one in pairs),
        )


def feed(plan: Plan, found: Result) -> Iterator[Figure]:
    for key, words in (
        ("alone", "write in OpenBao to version here, by feed"),
        ("beside", f"  while a full cycle of {plan.secrets:,} runs"),
    ):
        for percentile, bar in (("p50", 0.3), ("p99", 1.0)):
            seen = found[key][f"{percentile}_s"]
            yield Figure(f"{words}, {percentile}", f"{seen:.2f} s", "", seen, bar)


def reads(plan: Plan, rounds: list[Result]) -> Iterator[Figure]:
    def rate(name: str) -> float:
        return middle(r[name]["per_second"] for r in rounds)

    few, slowest = rate("few"), middle(r["few"]["p99_s"] for r in rounds)
    for name, words, beside, bar in (
        ("nothing", "audited reads a second", "a handler that does nothing", 0.5),
        ("root", "  to OpenBao's own GET, as root", "OpenBao", 0.8),
        ("approle", "  by an AppRole with the default policy", "OpenBao", 1.5),
    ):
        yield Figure(
            words,
            f"{few:,.0f}/s",
            f"{rate(name):,.0f}/s {beside}",
            few / rate(name),
            bar,
            True,
            rounds=tuple(r["few"]["per_second"] / r[name]["per_second"] for r in rounds),
        )
    yield Figure(
        "  the slowest in a hundred, ms", f"{slowest * 1000:.0f} ms", "", slowest * 1000, 40
    )
    n = f"{plan.thousands:,}"
    yield Figure(
        f"reads with {n} policies and tokens",
        f"{rate('many'):,.0f}/s",
        f"{rate('one'):,.0f}/s with one of each, of as many secrets",
        rate("many") / rate("one"),
        0.9,
        True,
        rounds=tuple(r["many"]["per_second"] / r["one"]["per_second"] for r in rounds),
    )
    own = "OpenBao's own GET by the same token"
    for name, words, beside, told, least in (
        ("through", "reads that pass through a second, 16 at a time", "own", own, 0.5),
        ("wide", "  by a token with the policy `default`", "default", own, 0.5),
        ("through", "  without that one, to a GET with it", "default", "OpenBao's own GET", None),
        ("recording", "  a pass-through that writes a row of each", "own", own, None),
        ("passing", "  one that does nothing else", "own", own, None),
    ):
        yield Figure(
            words,
            f"{rate(name):,.0f}/s",
            f"{rate(beside):,.0f}/s {told}",
            rate(name) / rate(beside),
            least,
            True,
            rounds=tuple(r[name]["per_second"] / r[beside]["per_second"] for r in rounds),
        )
    size = middle(r["row"]["bytes"] for r in rounds)
    yield Figure("bytes a row of the audit log, indexes included", f"{size:,.0f} B", "", size, 600)


def aws(plan: Plan, rounds: list[Result]) -> Iterator[Figure]:
    """Calls, which are what AWS bills and limits; the seconds are those of a stand-in."""
    n = f"{plan.clouded:,}"
    for key, words, bar in (
        ("first", f"AWS, calls of a first import of {n}", 0.06),
        ("quiet", "  of a quiet cycle", 0.01),
    ):
        calls = middle(sum(r[key]["calls"].values()) for r in rounds)
        made = {name: many for name, many in rounds[0][key]["calls"].items() if many}
        seconds = middle(r[key]["seconds"] for r in rounds)
        peak = max(r[key]["peak_mb"] for r in rounds)
        told = ", ".join(f"{many} {name}" for name, many in made.items())
        told = f"{told}; {seconds:.1f} s, {peak:.0f} MB"
        yield Figure(words, told, "", calls, bar * plan.clouded)
