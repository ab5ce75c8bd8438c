"""A page of metrics, read by Prometheus' own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Series = dict[tuple[str, ...], float]


def series(page: bytes) -> Series:
    """Each value by its name and then its label values, in the order of the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def families(page: bytes) -> set[str]:
    """Names as one writes them in a query, a histogram's without its suffixes."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(page.decode())
    }


def moved(before: bytes, after: bytes) -> Series:
    """What changed of counters, by how much; a series that is new began at 0."""
    old = series(before)
    changed = {key: value - old.get(key, 0.0) for key, value in series(after).items() if key[0].endswith("_total")}
    return {key: value for key, value in changed.items() if value and key[0] != "sidecar_ledger_entries_total"}
