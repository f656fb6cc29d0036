"""The evaluation as Markdown: every target beside the best published value and what was measured, and all baselines."""

from __future__ import annotations

from typing import Any

# arXiv 2406.18665v4: best router trained on arena votes only, and best with judge or gold labels.
PUBLISHED = {"mmlu_test": ".524", "gsm8k_test": ".475", "mt_bench": ".610"}
PUBLISHED_WITH_LABELS = {"mmlu_test": ".603", "gsm8k_test": ".622"}
TARGETS = {"mmlu_test": ".62", "gsm8k_test": ".61", "mt_bench": ".75"}
TARGETS_WITH_LABELS = {"mmlu_test": ".67", "gsm8k_test": ".62"}

# One name for what the reports call differently.
SAME_METHOD = {
    "knn": "nearest_neighbours",
    "subject_gain_leave_one_out": "subject_mean",
    "random_mix": "random",
    "local": "artifact_and_labels",
    "local_named": "artifact_and_labels_told_the_task",
}
ORDER = (
    *("artifact", "artifact_difficulty", "artifact_and_labels", "artifact_and_labels_told_the_task"),
    *(
        "random",
        "length",
        "dataset_mean",
        "global_mean",
        "subject_mean",
        "tfidf_logistic_regression",
        "nearest_neighbours",
    ),
    *("always_weak", "always_strong", "oracle"),
)

LEGEND = """\
`target`: what the makers of Penstock want the bundled artifact to reach on the public tables; one of your own need not.
`best published`: the best router of arXiv 2406.18665 on the same prompts. `length`: ranking by the prompt's length alone.
`APGR`: of the quality between always asking the weak model and always the strong one, the share that is won, averaged over all
shares of calls to the strong one: 0 is always weak, 1 always strong, about .5 chance. In brackets 95 % intervals.
`area`: mean quality over all budgets for nine models. `ECE`: mean distance of predicted and observed quality, 0 to 1;
`chance`: what predictions without any error would show on as many answers, at least. By domain, where a domain has too few
prompts for an ECE, the `gap` of mean predicted and mean recorded quality stands in its place.
`demanding above everyday prompts`: the probability that of two prompts the demanding one is called more difficult.
`floor 0.9 kept`: the share of simulated deployments, each with labels of its own, whose traffic kept 0.9 of the best tier's
quality; it is no share of quality. 95 % are promised. What the artifact promises without labels, by the sample inside it,
stands in the rows `promised by its own sample`."""


def target_table(report: dict[str, Any]) -> str:
    """The table, one row per target, with what its words mean."""
    rows = ["| | best published | length | simple baselines | this | target |", "|---|---|---|---|---|---|"]
    rows += [_pair(name, values) for name, values in report["routellm"].items()]
    rows += [_few(name, values) for name, values in report["few_labels"].items()]
    rows += _nine(report["nine_models"])
    for kind, target in (("unseen_domains", "<= .06"), ("seen_domains", "<= .03")):
        values = report["quality"][kind]
        found = ", ".join(
            f"{tier} {_short(each['ece'])} (chance {_short(each['ece_by_chance'])})"
            for tier, each in values.items()
            if "ece" in each
        )
        means = ", ".join(_short(each["ece_domain_mean"]) for each in values.values() if "ece_domain_mean" in each)
        rows.append(f"| ECE, {kind.replace('_', ' ')} | | | mean {means} | {found} | {target} |")
    rows += _everyday(report["everyday"])
    rows += _wording(report["wording"])
    for name, values in report["promised_floor"].items():
        for method, each in values["rows"].items():
            kept, share = 100 * each["kept"], 100 * each["share_to_strong"]
            rows.append(
                f"| floor {method} kept, {name} | | | | {kept:.1f} % of deployments ({share:.0f} % strong calls) | >= 95 % |"
            )
    rows += _worths(report["promised_worth"])
    rows += _newcomers(report["newcomers"])
    rows += _speed(report["microseconds_per_score"])
    return "\n".join(rows) + f"\n\n{LEGEND}\n\n{baseline_table(report)}\n\n{domain_table(report['quality'])}"


def domain_table(quality: dict[str, Any]) -> str:
    """Calibration by domain and tier: mean predicted and recorded quality, calibration error with chance, prompts."""
    tiers = list(dict.fromkeys(tier for side in quality.values() for tier in side))
    rows = [
        "| calibration by domain | "
        + " | ".join(f"{tier}: predicted, recorded; ECE; prompts" for tier in tiers)
        + " |",
        "|---" * (len(tiers) + 1) + "|",
    ]
    for side, found in quality.items():
        names = sorted({name for each in found.values() for name in each.get("domains", ())})
        for name in names:
            cells = [_domain(found.get(tier, {}).get("domains", {}).get(name)) for tier in tiers]
            rows.append(f"| {name} ({side.partition('_')[0]}) | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _domain(each: dict[str, Any] | None) -> str:
    if each is None:
        return ""
    if "ece" in each:
        error = f"{_short(each['ece'])} (chance {_short(each['ece_by_chance'])})"
    else:
        error = f"gap {_short(each['gap'])} (chance {_short(each['gap_by_chance'])})"
    return f"{_short(each['predicted'])}, {_short(each['recorded'])}; {error}; {each['prompts']}"


def baseline_table(report: dict[str, Any]) -> str:
    """Every method in every comparison: APGR (0 always weak, 1 always strong); for nine models the area, or one's quality."""
    columns: dict[str, dict[str, float]] = {}
    for name, values in report["routellm"].items():
        found = {method: each["apgr"] for method, each in values.items() if isinstance(each, dict) and "apgr" in each}
        columns[f"{name}, unseen"] = {"always_weak": 0.0, "always_strong": 1.0, **found}
    for name, values in report["few_labels"].items():
        found = {method: each["apgr"] for method, each in values["rows"].items()}
        columns[f"{name}, {values['labels']} labels"] = {"always_weak": 0.0, "always_strong": 1.0, **found}
    nine = report["nine_models"]
    if nine is not None:
        size, fixed = nine["billions_of_parameters"], nine["always_one_model"]
        ends = {
            end: max(value for name, value in fixed.items() if size[name] == pick(size.values()))
            for end, pick in (("always_weak", min), ("always_strong", max))
        }
        columns["nine models, area"] = {**ends, **{name: row["area"] for name, row in nine["rows"].items()}}
    methods = list(dict.fromkeys(SAME_METHOD.get(method, method) for found in columns.values() for method in found))
    rows = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method in sorted(methods, key=_order):
        cells = []
        for found in columns.values():
            value = next((each for name, each in found.items() if SAME_METHOD.get(name, name) == method), None)
            cells.append("" if value is None else _short(value))
        rows.append(f"| {method.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _order(method: str) -> tuple[int, str]:
    return (ORDER.index(method) if method in ORDER else len(ORDER), method)


def _pair(name: str, values: dict[str, Any]) -> str:
    simple = f"tfidf {_short(values['tfidf_logistic_regression']['apgr'])}"
    subject = values.get("subject_gain_leave_one_out")
    simple += f", subject mean (labels) {_short(subject['apgr'])}" if subject else ""
    others = f"difficulty {_short(values['artifact_difficulty']['apgr'])}"
    return (
        f"| {name} APGR, unseen | {PUBLISHED[name]} | {_short(values['length']['apgr'])} | {simple} "
        f"| {_interval(values['artifact'], 'apgr')}; {others} | >= {TARGETS[name]} |"
    )


def _everyday(report: dict[str, Any]) -> list[str]:
    above = report["demanding_above_everyday"]
    rows = [
        f"| demanding above everyday prompts | | {_short(above['length']['value'])} "
        f"| | {_interval(above['artifact_difficulty'], 'value')} | |"
    ]
    for model, sets in report["models"].items():
        for name, each in sets.items():
            rows.append(
                f"| {model} on {name.replace('_', ' ')} | | | as economy {_short(each['predicted_as_economy'])} "
                f"| predicted {_short(each['predicted'])}, recorded {_short(each['recorded'])} | |"
            )
    return rows


def _wording(report: dict[str, Any]) -> list[str]:
    """What words alone do: to the predicted quality, and to whether an easy prompt counts as familiar."""
    one, many = report["quality_lost_by_one_plea"], report["quality_lost_by_three_chosen"]
    rows = [
        f"| predicted economy quality lost by pleas, 95th percentile | | | | one {_short(one['p95'])}, three chosen "
        f"{_short(many['p95'])} | |"
    ]
    found = report["turned_unfamiliar"]
    share = {kind: "none" if each is None else f"{100 * each:.0f} %" for kind, each in found["turned"].items()}
    rows.append(
        f"| {found['prompts']} easy prompts, turned unfamiliar by words put behind them | | | | four words of "
        f"nonsense {share['one_nonsense']}, a German sentence {share['one_foreign']}, the best of {found['ends']} such "
        f"ends {share['any']}, of the pleas {share['any_plea']} | bounded by `max_unfamiliar_share` |"
    )
    return rows


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


def _worths(report: dict[str, Any]) -> list[str]:
    if "rows" not in report:
        return []
    rows = [
        f"| floor {floor} kept by worth, held-out stems | | | | {100 * each['kept']:.1f} % of deployments (saves "
        f"{100 * each['saved']:.0f} % of the best tier's cost) | >= 95 % |"
        for floor, each in report["rows"].items()
    ]
    return rows + [_own_promise(floor, each) for floor, each in report["artifact"].items()]


def _newcomers(report: dict[str, Any]) -> list[str]:
    """What few labels of a new model give beyond their mean, and beyond the recorded models without any label."""
    named = {"routed_above_mix": "quality of routing half to it", "brier": "Brier score"}
    against = {"global_mean": "the labels' mean", "prior_only": "the prior without labels"}
    return [
        f"| new model with {report['labels']} labels, gain in {what} over {against[other]} ({report['models']} models) "
        f"| | | {_signed(report['rows'][other], measure)} | {_signed(report['rows']['ability'], measure)}; gain {_gain(each)} "
        f"| {'above 0' if (measure, other) == ('routed_above_mix', 'global_mean') else ''} |"
        for measure, what in named.items()
        for other, gains in report["gain_over"].items()
        for each in (gains[measure],)
    ]


def _signed(row: dict[str, float], measure: str) -> str:
    return f"{row[measure]:+.4f}" if measure == "routed_above_mix" else f"{row[measure]:.4f}"


def _gain(each: dict[str, float]) -> str:
    return f"{each['value']:+.4f} ({each['low']:+.4f} to {each['high']:+.4f})"


def _own_promise(floor: str, promise: dict[str, Any]) -> str:
    """What a gateway makes of the floor without labels of its own, and what that keeps of the quality of held-out prompts."""
    told = (
        f"kept {promise['kept_here']:.3f} of the quality (saves {100 * promise['saved_here']:.0f} %)"
        if promise["possible"]
        else f"not possible with its {promise['labels']} labels: always the best tier"
    )
    return f"| floor {floor} promised by its own sample, held-out stems | | | | {told} | >= {floor} |"


def _speed(values: dict[str, Any]) -> list[str]:
    """The score by itself; the whole decision around it is timed by benchmarks/router_decision.py."""
    long = values["100000_characters"]
    timed = (
        ("different prompts", values.get("about_200_tokens_all_different")),
        ("one prompt again and again", values["about_200_tokens"]),
    )
    memory = values["memory_mib"]
    return [
        *(_score(f"score alone, {what} of 200 tokens", each) for what, each in timed if each is not None),
        f"| score alone, 100,000 characters | | | | p50 {long['p50']} us | <= 2,000 us |",
        f"| memory | | | numpy alone {memory['numpy_alone']} MiB | {memory['with_router']} MiB | <= 60 MB |",
    ]


def _score(name: str, each: dict[str, Any]) -> str:
    return (
        f"| {name} | 6.5 ms (mf) | | | p50 {each['p50']} us, p99 {each['p99']} us; processor {each['processor_mean']} us, "
        f"{each['per_second_and_core']}/s | whole decision: p50 <= 200 us, p99 <= 600 us, >= 4,000/s |"
    )


def _interval(row: dict[str, float], key: str) -> str:
    return f"{_short(row[key])} ({_short(row['low'])} to {_short(row['high'])})"


def _short(value: float) -> str:
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text
