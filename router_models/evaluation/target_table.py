"""The evaluation as one Markdown table: every target beside the best published value, the baselines and what was measured."""

from __future__ import annotations

from typing import Any

# arXiv 2406.18665v4: best router trained on arena votes only, and best with judge or gold labels.
PUBLISHED = {"mmlu_test": ".524", "gsm8k_test": ".475", "mt_bench": ".610"}
PUBLISHED_WITH_LABELS = {"mmlu_test": ".603", "gsm8k_test": ".622"}
TARGETS = {"mmlu_test": ".62", "gsm8k_test": ".61", "mt_bench": ".75"}
TARGETS_WITH_LABELS = {"mmlu_test": ".67", "gsm8k_test": ".62"}


def target_table(report: dict[str, Any]) -> str:
    """The table, one row per target."""
    rows = ["| | best published | length | simple baselines | this | target |", "|---|---|---|---|---|---|"]
    rows += [_pair(name, values) for name, values in report["routellm"].items()]
    rows += [_few(name, values) for name, values in report["few_labels"].items()]
    rows += _nine(report["nine_models"])
    for kind, target in (("unseen_domains", "<= .06"), ("seen_domains", "<= .03")):
        values = report["quality"][kind]
        found = ", ".join(f"{tier} {_short(each['ece'])}" for tier, each in values.items() if "ece" in each)
        means = ", ".join(_short(each["ece_domain_mean"]) for each in values.values() if "ece_domain_mean" in each)
        rows.append(f"| ECE, {kind.replace('_', ' ')} | | | mean {means} | {found} | {target} |")
    for name, values in report["promised_floor"].items():
        for method, each in values["rows"].items():
            kept, share = 100 * each["kept"], 100 * each["share_to_strong"]
            rows.append(f"| floor {method} kept, {name} | | | | {kept:.1f} % ({share:.0f} % strong calls) | >= 95 % |")
    rows += _speed(report["microseconds_per_score"])
    return "\n".join(rows)


def _pair(name: str, values: dict[str, Any]) -> str:
    simple = f"tfidf {_short(values['tfidf_logistic_regression']['apgr'])}"
    subject = values.get("subject_gain_leave_one_out")
    simple += f", subject mean (labels) {_short(subject['apgr'])}" if subject else ""
    others = f"difficulty {_short(values['artifact_difficulty']['apgr'])}"
    return (
        f"| {name} APGR, unseen | {PUBLISHED[name]} | {_short(values['length']['apgr'])} | {simple} "
        f"| {_interval(values['artifact'], 'apgr')}; {others} | >= {TARGETS[name]} |"
    )


def _few(name: str, values: dict[str, Any]) -> str:
    found = {method: f"{_short(row['apgr'])} +- {_short(row['sd'])}" for method, row in values["rows"].items()}
    others = ", ".join(f"{method} {text}" for method, text in found.items() if method not in ("local", "length"))
    return (
        f"| {name} APGR, {values['labels']} labels | {PUBLISHED_WITH_LABELS[name]} | {found['length']} "
        f"| {others} | {found['local']} | >= {TARGETS_WITH_LABELS[name]} |"
    )


def _nine(report: dict[str, Any] | None) -> list[str]:
    if report is None:
        return []
    rows = report["rows"]
    above = rows["local"]
    difference = f"{above['above_dataset_mean']:+.4f} ({above['above_low']:+.4f} to {above['above_high']:+.4f})"
    told = rows["local_named"]
    named = f"{told['above_dataset_mean']:+.4f} ({told['above_low']:+.4f} to {told['above_high']:+.4f})"
    simple = f"dataset mean {_short(rows['dataset_mean']['area'])}, knn {_short(rows['knn']['area'])}"
    return [
        f"| nine models, area | | {_short(rows['length']['area'])} | {simple}, global {_short(rows['global_mean']['area'])} "
        f"| {_short(above['area'])}; above dataset mean {difference}; told the task {named} | above 0 |"
    ]


def _speed(values: dict[str, Any]) -> list[str]:
    short, long = values["about_200_tokens"], values["100000_characters"]
    memory = values["memory_mib"]
    return [
        f"| one score, 200 tokens | 6.5 ms (mf) | | | p50 {short['p50']} us, p99 {short['p99']} us; processor "
        f"{short['processor_mean']} us, {short['per_second_and_core']}/s | p50 <= 200 us, p99 <= 600 us, >= 4,000/s |",
        f"| one score, 100,000 characters | | | | p50 {long['p50']} us | <= 2,000 us |",
        f"| memory | | | numpy alone {memory['numpy_alone']} MiB | {memory['with_router']} MiB | <= 60 MB |",
    ]


def _interval(row: dict[str, float], key: str) -> str:
    return f"{_short(row[key])} ({_short(row['low'])} to {_short(row['high'])})"


def _short(value: float) -> str:
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text
