"""docs/benchmarks.md: figures between two marks, and around them what people have written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from benchmarks.catalogue import DATABASES
from benchmarks.charts import Bar, Panel, bar_chart
from benchmarks.targets import targets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.results import Results

BEGIN: Final = "<!-- figures: written by python -m benchmarks report -->"
END: Final = "<!-- end of figures -->"
_NAMES: Final = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
_COLUMNS: Final = ("", "{unit}/s", "p50 ms", "p99 ms", "longest ms", "client CPU ms", "server CPU ms",
                   "log bytes", "memory MB", "errors")  # fmt: skip
_EXTRAS: Final = {
    "list_ms": "a page of inactive users, ms",
    "alone_ms": "a lone turn, ms",
    "beside_p99_ms": "99 % of turns beside a clean-up, ms",
    "pause_ms": "the longest one, ms",
    "quiet_ms": "the longest one of as long a time with nothing beside it, ms",
    "deleted_users": "users deleted",
    "deleting_s": "deleting them, s",
    "grown_mb": "memory grown by, MB",
    "second_to_first": "pace, second half to first",
    "huge_ms": "the huge message alone, ms",
    "beside_ms": "the longest turn beside it, ms",
    "usual_ms": "a usual turn, ms",
}


def write_report(results: Results, folder: Path) -> None:
    """Write the charts, and the figures into ``benchmarks.md``; what stands around them stays."""
    path, charts = folder / "benchmarks.md", folder / "benchmarks"
    charts.mkdir(parents=True, exist_ok=True)
    for key in results.workloads:
        (charts / f"{key.lower()}.svg").write_text(_chart(results, key))
    old = path.read_text() if path.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{figures(results)}\n{END}{after}")


def figures(results: Results) -> str:
    """Return the generated part."""
    parts = [_targets(results), _durability(results)]
    parts += [_workload(results, key) for key in results.workloads]
    parts.append(_machine(results))
    return "\n".join(parts)


def _targets(results: Results) -> str:
    rows = [
        (
            t.workload,
            t.what,
            f"{t.value:.2f}{t.unit}" if t.unit else f"{t.value:.0f}",
            f"{t.sign} {t.must:g}",
            f"{t.sign} {t.goal:g}",
            t.verdict,
        )
        for t in targets(results)
    ]
    head = ("", "agno_sql compared with", "ratio", "must", "goal", "reached")
    return "## Ratios\n\n" + _table(head, rows, right={2, 3, 4})


def _durability(results: Results) -> str:
    told: dict[tuple[str, str, str], None] = {}
    for key in results.workloads:
        for r in results.records(key):
            settings = ", ".join(f"{k}={v}" for k, v in r["median"]["durability"].items())
            told[_NAMES[r["database"]], r["title"], settings] = None
    return "## Durability, as the connections that wrote have told\n\n" + _table(
        ("", "driver", "settings"), list(told), right=set()
    )


def _workload(results: Results, key: str) -> str:
    known = results.workloads[key]
    parts = [f"## {key}: {known['title']}\n", f"![{key}](benchmarks/{key.lower()}.svg)\n"]
    for database in DATABASES:
        records = [r for r in known["records"] if r["database"] == database]
        if not records:
            continue
        head = (_NAMES[database], *(c.format(unit=known["unit"]) for c in _COLUMNS[1:]))
        rows = [_row(r) for r in sorted(records, key=_pace, reverse=True)]
        parts.append(_table(head, rows, right=set(range(1, len(head)))))
        parts.extend(_extras(records))
        how = known["measured"][database]
        machine, times = how["machine"], how["repetitions"]
        parts.append(
            f"{f'Medians of {times} repetitions, interleaved' if times > 1 else 'One repetition'}; "
            f"{machine['measured_at']}, commit {machine['commit']}, "
            f"fdatasync {machine['fdatasync_ms']:.2f} ms.\n"
        )
    return "\n".join(parts)


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    title = _title(record)
    if "median" not in record:
        return (title, "failed", *[""] * (len(_COLUMNS) - 2))
    m = record["median"]
    log = m.get("log_bytes", m["written_bytes"])
    return (
        title,
        f"{m['rate']:,.0f}",
        f"{m['p50_ms']:.2f}",
        f"{m['p99_ms']:.2f}",
        f"{m['longest_ms']:.1f}",
        f"{m['client_cpu_ms']:.3f}",
        f"{m['server_cpu_ms']:.3f}" if "server_cpu_ms" in m else "",
        f"{log:,.0f}",
        f"{m['peak_mb']:.0f}",
        f"{m['errors']:.0f}" if m["errors"] else "",
    )


def _extras(records: list[dict[str, Any]]) -> Iterator[str]:
    measured = [r for r in records if "median" in r and _EXTRAS.keys() & r["median"].keys()]
    names = [n for n in _EXTRAS if any(n in r["median"] for r in measured)]
    if names:
        rows = [
            (_title(r), *(f"{r['median'][n]:,.2f}" if n in r["median"] else "" for n in names))
            for r in measured
        ]
        yield _table(("", *(_EXTRAS[n] for n in names)), rows, right=set(range(1, len(names) + 1)))


def _title(record: dict[str, Any]) -> str:
    title = f"**{record['title']}**" if record["role"] == "ours" else record["title"]
    return f"{title}, {record['variant']}" if record["variant"] else title


def _pace(record: dict[str, Any]) -> float:
    return float(record["median"]["rate"]) if "median" in record else 0.0


def _chart(results: Results, key: str) -> str:
    known = results.workloads[key]
    panels = []
    for database in DATABASES:
        records = [r for r in results.records(key) if r["database"] == database]
        several = len({r["variant"] for r in records}) > 1
        if not several:
            records.sort(key=_pace, reverse=True)
        bars = tuple(
            Bar(_title(r).replace("**", ""), r["median"]["rate"], r["role"]) for r in records
        )
        if bars:
            panels.append(Panel(_NAMES[database], bars))
    return bar_chart(f"{key}: {known['title']}", f"{known['unit']} per second", tuple(panels))


def _machine(results: Results) -> str:
    rows: dict[tuple[str, str], None] = {}
    for how in (h for known in results.workloads.values() for h in known["measured"].values()):
        machine, server = how["machine"], how["server"]
        shown = {
            "machine": f"{machine['cores']} cores ({machine['processor']}), "
            f"{machine['memory_gb']} GB, {machine['system']}, {machine['filesystem']}",
            "Python, SQLite": f"{machine['python']}, {machine['sqlite']}",
            "PostgreSQL": ", ".join(f"{k} {v}" for k, v in server.items()),
            **{
                f"environment {name}": ", ".join(f"{k} {v}" for k, v in found.items())
                for name, found in how["versions"].items()
                if found
            },
        }
        rows.update(dict.fromkeys(shown.items()))
    return "## Where\n\n" + _table(("", ""), list(rows), right=set())


def _table(head: tuple[str, ...], rows: list[Any], *, right: set[int]) -> str:
    rule = ["--:" if n in right else "---" for n in range(len(head))]
    lines = [head, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
