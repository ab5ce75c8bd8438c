"""Each alert fires on the series that it is for, and then no other does; on those of a healthy fleet none fires.

Real `promtool`: it evaluates the rules minute by minute over the series and says what `ALERTS` holds.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.needs import needs_program

REPOSITORY: Final = Path(__file__).parents[2]
RULES: Final = sorted((REPOSITORY / "charts/collector/rules").glob("*.yaml"))
DAY: Final = 86_400

SIDECAR: Final = 'job="agents", instance="billing-0"'
COLLECTOR: Final = 'job="collector", instance="collector-0"'
HEALTHY: Final = {
    f"sidecar_ready{{{SIDECAR}}}": "1+0x90",
    f'sidecar_decisions_total{{{SIDECAR}, effect="ALLOW", cause="policy"}}': "0+600x90",
    f'sidecar_decisions_total{{{SIDECAR}, effect="DENY", cause="policy"}}': "0+60x90",
    f'sidecar_fail_closed_total{{{SIDECAR}, cause="engine_timeout"}}': "0+0x90",
    f"sidecar_policy_stale{{{SIDECAR}}}": "0+0x90",
    f"sidecar_policy_age_seconds{{{SIDECAR}}}": "20+0x90",
    f'sidecar_policy_events_total{{{SIDECAR}, event="refused"}}': "0+0x90",
    f'sidecar_policy_events_total{{{SIDECAR}, event="activated"}}': "1+1x90",
    f'sidecar_policy_events_total{{{SIDECAR}, event="unreachable"}}': "0+1x90",
    f'sidecar_registry_events_total{{{SIDECAR}, event="refused"}}': "0+0x90",
    f"sidecar_unanchored_age_seconds{{{SIDECAR}}}": "70+0x90",
    f"sidecar_unshipped_entries{{{SIDECAR}}}": "3+0x90",
    f"sidecar_unshipped_exceeded{{{SIDECAR}}}": "0+0x90",
    f"sidecar_ship_failures{{{SIDECAR}}}": "0 1 2 0 1 0+0x90",
    f"sidecar_ship_refused{{{SIDECAR}}}": "0+0x90",
    f"sidecar_ledger_headroom_bytes{{{SIDECAR}}}": "9e9-1000000x90",
    f"sidecar_ledger_limit_bytes{{{SIDECAR}}}": "1e10+0x90",
    # Of an hour, renewed at half of it: SPIRE's habit.
    f'sidecar_tls_certificate_end_seconds{{{SIDECAR}, shown_to="callers"}}': " ".join(
        f"{3600 + n * 1800}+0x29" for n in range(4)
    ),
    f'sidecar_tls_certificate_end_seconds{{{SIDECAR}, shown_to="authzen"}}': f"{60 * DAY}+0x90",
    f"sidecar_collector_certificate_end_seconds{{{SIDECAR}}}": f"{60 * DAY}+0x90",
    f"collector_tls_certificate_end_seconds{{{COLLECTOR}}}": f"{60 * DAY}+0x90",
    f"sidecar_registry_broken{{{SIDECAR}}}": "0 1 0+0x90",
    f"sidecar_tls_faults_total{{{SIDECAR}}}": "0+0x90",
    f'sidecar_unproved_total{{{SIDECAR}, why="replayed"}}': "0+1x90",
    f"sidecar_not_enforced_total{{{SIDECAR}}}": "0+0x90",
    f'sidecar_decision_seconds_bucket{{{SIDECAR}, stage="total", le="0.005"}}': "0+600x90",
    f'sidecar_decision_seconds_bucket{{{SIDECAR}, stage="total", le="1.0"}}': "0+600x90",
    f'sidecar_decision_seconds_bucket{{{SIDECAR}, stage="total", le="+Inf"}}': "0+600x90",
    # A second one, which ships nowhere: everything of it is unanchored, and that is known.
    'sidecar_ready{job="agents", instance="alone-0"}': "1+0x90",
    'sidecar_unanchored_age_seconds{job="agents", instance="alone-0"}': "0+60x90",
    **{f'collector_alarms_total{{{COLLECTOR}, kind="{k}"}}': "0+0x90" for k in ("FORK", "ROLLBACK", "CLONE", "LOSS")},
    **{f'collector_alarms_kept{{{COLLECTOR}, kind="{k}"}}': "1+0x90" for k in ("FORK", "ROLLBACK", "CLONE", "LOSS")},
    f"collector_ready{{{COLLECTOR}}}": "1+0x90",
    f"collector_chains{{{COLLECTOR}}}": "2+0x90",
    f"collector_unanchored_age_seconds{{{COLLECTOR}}}": "50+0x90",
    f"collector_disk_free_bytes{{{COLLECTOR}}}": "2e10-1000x90",
    f"collector_silent_chains{{{COLLECTOR}}}": "0+0x90",
    f"collector_lag_seconds{{{COLLECTOR}}}": "1+0x90",
    f"collector_log_size{{{COLLECTOR}}}": "10+3x90",
    f"collector_log_failures{{{COLLECTOR}}}": "0 0 1 0+0x90",
    f'collector_unanchored_seconds{{{COLLECTOR}, party="w1"}}': "3+0x90",
    f'collector_anchor_refused_total{{{COLLECTOR}, party="w1"}}': "0+0x90",
    f"collector_index_mended_total{{{COLLECTOR}}}": "0+0x90",
}


def series(where: str, name: str, values: str, labels: str = "") -> dict[str, str]:
    return {f"{name}{{{where}{labels and ', ' + labels}}}": values}


of_sidecar, of_collector = functools.partial(series, SIDECAR), functools.partial(series, COLLECTOR)


# What fires, exactly; the series that are otherwise than healthy; at which minute.
CASES: Final[list[tuple[set[str], dict[str, str], int]]] = [
    (set(), {}, 60),
    ({"SidecarNotReady"}, of_sidecar("sidecar_ready", "1+0x30 0+0x60"), 34),
    (set(), of_sidecar("sidecar_ready", "1+0x30 0 1+0x60"), 33),
    (
        {"SidecarFailsClosed", "SidecarFailsClosedNowAndThen"},
        of_sidecar("sidecar_fail_closed_total", "0+60x90", 'cause="engine_timeout"'),
        20,
    ),
    ({"SidecarFailsClosedNowAndThen"}, of_sidecar("sidecar_fail_closed_total", "0+1x90", 'cause="engine_timeout"'), 40),
    ({"SidecarPolicyStale"}, of_sidecar("sidecar_policy_stale", "0+0x10 1+0x60"), 14),
    ({"SidecarPolicyNotLookedAt"}, of_sidecar("sidecar_policy_age_seconds", "0+60x90"), 40),
    ({"SidecarPolicyRefused"}, of_sidecar("sidecar_policy_events_total", "0+0x20 1+0x60", 'event="refused"'), 30),
    (set(), of_sidecar("sidecar_policy_events_total", "0+0x20 1+0x60", 'event="refused"'), 60),
    ({"SidecarRegistryRefused"}, of_sidecar("sidecar_registry_events_total", "0+0x20 1+0x60", 'event="refused"'), 30),
    ({"SidecarUnanchored"}, of_sidecar("sidecar_unanchored_age_seconds", "0+60x90"), 20),
    (
        {"SidecarUnanchored", "SidecarUnanchoredLong"},
        of_sidecar("sidecar_unanchored_age_seconds", "7000+60x90"),
        20,
    ),
    ({"SidecarUnshippedExceeded"}, of_sidecar("sidecar_unshipped_exceeded", "0+0x10 1+0x60"), 14),
    ({"SidecarCannotShip"}, of_sidecar("sidecar_ship_failures", "0+1x90"), 15),
    ({"SidecarShippingRefused"}, of_sidecar("sidecar_ship_refused", "0+0x10 1+0x60"), 15),
    ({"SidecarLedgerFillsUp"}, of_sidecar("sidecar_ledger_headroom_bytes", "9e8+0x90"), 30),
    ({"SidecarLedgerFillsUp"}, of_sidecar("sidecar_ledger_headroom_bytes", "9e9-10000000x90"), 80),
    (
        {"SidecarLedgerFillsUp", "SidecarLedgerFull"},
        of_sidecar("sidecar_ledger_headroom_bytes", "9e7+0x90"),
        30,
    ),
    ({"CertificateEnds"}, of_sidecar("sidecar_tls_certificate_end_seconds", "3600+0x90", 'shown_to="authzen"'), 55),
    ({"CertificateEnds"}, of_sidecar("sidecar_collector_certificate_end_seconds", "3600+0x90"), 55),
    ({"CertificateEnds"}, of_collector("collector_tls_certificate_end_seconds", "3600+0x90"), 55),
    (set(), of_collector("collector_tls_certificate_end_seconds", "3600+0x90"), 45),
    ({"SidecarRegistryBroken"}, of_sidecar("sidecar_registry_broken", "0+0x9 1+0x90"), 20),
    ({"SidecarTlsMaterialUnusable"}, of_sidecar("sidecar_tls_faults_total", "0+0x10 1+0x60"), 15),
    ({"SidecarCallersUnproved"}, of_sidecar("sidecar_unproved_total", "0+60x90", 'why="replayed"'), 30),
    ({"SidecarNotEnforced"}, of_sidecar("sidecar_not_enforced_total", "0+1x90"), 30),
    (
        {"SidecarSlow"},
        of_sidecar("sidecar_decision_seconds_bucket", "0+300x90", 'stage="total", le="0.005"'),
        30,
    ),
    ({"CollectorFork"}, of_collector("collector_alarms_total", "0+0x10 1+0x60", 'kind="FORK"'), 50),
    # Raised just before a restart: only the index still knows it.
    ({"CollectorFork"}, of_collector("collector_alarms_kept", "1+0x10 2+0x60", 'kind="FORK"'), 50),
    ({"CollectorChainWentBack"}, of_collector("collector_alarms_total", "0+0x10 1+0x60", 'kind="CLONE"'), 50),
    ({"CollectorChainWentBack"}, of_collector("collector_alarms_total", "0+0x10 1+0x60", 'kind="ROLLBACK"'), 50),
    ({"CollectorLossAccepted"}, of_collector("collector_alarms_total", "0+0x10 1+0x60", 'kind="LOSS"'), 50),
    ({"CollectorChainSilent"}, of_collector("collector_silent_chains", "0+0x10 1+0x60"), 15),
    (
        {"CollectorDown"},
        {series: "1+0x20" for series in HEALTHY if series.startswith("collector_ready")},
        40,
    ),
    ({"CollectorNotReady"}, of_collector("collector_ready", "0+0x90"), 10),
    ({"CollectorUnanchored"}, of_collector("collector_unanchored_age_seconds", "0+60x90"), 20),
    ({"CollectorDiskFillsUp"}, of_collector("collector_disk_free_bytes", "2e10-10000000x90"), 70),
    ({"CollectorDiskFull"}, of_collector("collector_disk_free_bytes", "2e8+0x90"), 10),
    ({"CollectorLogFails"}, of_collector("collector_log_failures", "0+1x90"), 20),
    ({"CollectorLogStands"}, of_collector("collector_log_size", "10+0x90"), 30),
    (
        set(),
        of_collector("collector_log_size", "0+0x90") | of_collector("collector_chains", "0+0x90"),
        30,
    ),
    ({"CollectorHearsNothing"}, of_collector("collector_lag_seconds", "0+60x90"), 10),
    ({"CollectorAnchorLate"}, of_collector("collector_unanchored_seconds", "0+60x90", 'party="w1"'), 30),
    ({"CollectorAnchorRefused"}, of_collector("collector_anchor_refused_total", "0+0x10 1+0x60", 'party="w1"'), 15),
    ({"CollectorIndexMended"}, of_collector("collector_index_mended_total", "0+0x10 1+0x60"), 15),
]
# After more than a day, of this series alone, so that no minute of it need be looked at: nobody hears of a collector.
DAYS: Final[list[tuple[set[str], str, int]]] = [
    ({"CertificateNotRenewed", "CollectorDown"}, f"{5 * DAY}+0x150", 1450),
    ({"CollectorDown"}, f"{5 * DAY}+0x149 {95 * DAY}+0x10", 1510),
    ({"CollectorDown"}, f"{20 * DAY}+0x150", 1450),
]


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def as_test(fires: set[str], different: dict[str, str], minute: int) -> dict[str, Any]:
    """One test of promtool's: at that minute exactly these alerts fire."""
    assert set(different) <= set(HEALTHY), "a case changes a series of the healthy fleet"
    return promtool_test(fires, HEALTHY | different, minute, "1m")


def promtool_test(fires: set[str], series: dict[str, str], minute: int, interval: str) -> dict[str, Any]:
    shown = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(fires)]
    return {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": shown,
            }
        ],
    }


def promtool(*arguments: str | Path) -> str:
    run = subprocess.run([needs_program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_rules_are_ones() -> None:
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert sum(map(int, re.findall(r"SUCCESS: (\d+) rules found", said))) == len(rules()) > 0


@pytest.mark.parametrize("interval", ["1m", "10m"])
def test_each_alert_fires_on_its_own_series_and_no_other_does(tmp_path: Path, interval: str) -> None:
    file = tmp_path / "cases.yaml"
    certificate = f'sidecar_tls_certificate_end_seconds{{{SIDECAR}, shown_to="callers"}}'
    short = [as_test(*case) for case in CASES]
    long = [promtool_test(fires, {certificate: values}, minute, interval) for fires, values, minute in DAYS]
    tests = {"tests": short if interval == "1m" else long, "evaluation_interval": interval}
    file.write_text(yaml.safe_dump({"rule_files": list(map(str, RULES)), **tests}))
    promtool("test", "rules", file)


def test_each_alert_has_its_case() -> None:
    alone = {next(iter(fires)) for fires, _, _ in CASES if len(fires) == 1}
    named = {rule["alert"] for rule in rules()}
    assert named == set().union(*(case[0] for case in [*CASES, *DAYS]))
    # Some are the worse degree of another, which then fires as well.
    worse = {"SidecarFailsClosed", "SidecarUnanchoredLong", "SidecarLedgerFull"}
    assert named - alone == worse | {"CertificateNotRenewed"}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"]["summary"] and rule["annotations"]["runbook"]
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}


DASHBOARD: Final = REPOSITORY / "charts/collector/dashboards/decision-sidecar.json"


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Of every panel, with Grafana's own variables as it would put them in."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [expr.replace("$__rate_interval", "2m").replace("$instance", ".*") for expr in found]


def test_every_panel_asks_something_that_parses(tmp_path: Path) -> None:
    assert all(panel["title"] and panel["targets"] for panel in panels())
    assert not [expr for expr in expressions() if "$" in expr]
    file = tmp_path / "panels.yaml"
    asked = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))
    promtool("check", "rules", file)


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


METRIC: Final = re.compile(r"\b(?:sidecar|collector)_[a-z_]+[a-z]\b")


def metrics() -> set[str]:
    """Every series that docs/METRICS.md names; tests/api and tests/collector hold that page to the programs."""
    named = set(re.findall(r"^\| `([a-z_]+)` \|", (REPOSITORY / "docs/METRICS.md").read_text(), re.MULTILINE))
    parts = {f"{name}_{part}" for name in named for part in ("bucket", "sum", "count")}
    return named | parts


def test_every_series_that_is_asked_for_is_served() -> None:
    asked = {name for text in [*expressions(), *(rule["expr"] for rule in rules())] for name in METRIC.findall(text)}
    assert {name for name in asked if name not in metrics()} == set()
    assert len(asked) > 30
    made_up = {series.partition("{")[0] for series in HEALTHY}
    assert made_up <= metrics()
