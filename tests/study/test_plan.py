"""A study's YAML becomes jobs: each once, named by its content, renewed only where something that it rests on has changed."""

from __future__ import annotations

import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from support.command_line import ROOT, run
from support.tiny_study import STUDY, small, write_study

from ssl_transfer.cli.stages import check
from ssl_transfer.draws import draw_seed
from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.settings import evaluate_recipes
from ssl_transfer.recipe import read_yaml
from ssl_transfer.study.arms import arms_of, compared
from ssl_transfer.study.costs import Costs
from ssl_transfer.study.design import StudyRecipe, assignments, load_study
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.planned_contrasts import planned_boundaries
from ssl_transfer.study.planning import plan_study
from ssl_transfer.study.stage import check_settings

STUDIES = sorted((ROOT / "recipes/studies").glob("*.yaml"))


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Plan the tiny study with some changes."""
    monkeypatch.chdir(tmp_path)

    def planned(**changes) -> Plan:
        return plan_study(load_study(write_study(tmp_path, **changes)), Path("studies/tiny"))

    return planned


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """Plan a study of `recipes/studies`, once: where it is, what it was read as, and its plan."""

    @cache
    def planned(path: Path) -> tuple[Path, StudyRecipe, Plan]:
        folder, study = tmp_path_factory.mktemp(path.stem), load_study(path)
        return folder, study, plan_study(study, folder)

    return planned


def titles(plan: Plan, stage: str) -> list[str]:
    return [job.title for job in plan.jobs if job.stage == stage]


def test_every_combination_is_one_run(plan):
    counts = Counter((run["protocol"], run["strategy"]) for run in plan().runs)
    arms, seeds = 4, 2
    assert counts == {
        ("linear_probe", None): arms * seeds * 3,  # two seeds at fraction 0.5, one at 1.0
        ("knn", None): arms * seeds * 3,
        ("finetune", "full"): arms * seeds,
        ("finetune", "head_only"): arms * seeds,
        ("segment", None): arms * seeds,
    }


def test_shared_work_appears_once(plan):
    jobs = plan().by_stage()
    assert (jobs["ingest"], jobs["pretrain"], jobs["features"]) == (2, 8, 8)
    assert len({job.id for job in plan().jobs}) == len(plan().jobs)


def test_probes_of_a_backbone_and_task_are_one_job_for_all_fractions_and_seeds(plan):
    evaluations = [{"protocol": "linear_probe", "fractions": [0.25, 0.5, 1.0], "seeds": 2}]
    probes = [job for job in plan(evaluations=evaluations).jobs if job.stage == "evaluate"]
    words = [tuple(word for word in job.command if word.startswith(("fraction=", "seed="))) for job in probes]
    assert Counter(words) == {("fraction=[0.25,0.5,1]", "seed=[0,1]"): 8} and {len(job.runs) for job in probes} == {5}


@pytest.mark.parametrize("protocol", ["linear_probe", "knn"])
@pytest.mark.parametrize(
    "skip", [[], [{"seed": 0, "fraction": 0.5}], [{"seed": 0}], [{"seed": 1, "fraction": 1.0}]], ids=str
)
def test_a_command_evaluates_the_runs_of_its_job_and_no_others(plan, protocol, skip):
    evaluations = [{"protocol": protocol, "fractions": [1.0, 0.25, 0.5], "seeds": [0, 1]}]
    for job in plan(evaluations=evaluations, skip=skip).jobs:
        if job.stage == "evaluate":
            overrides = [word for word in job.command if word.startswith(("fraction=", "seed="))]
            swept = [(recipe.fraction, recipe.seed) for recipe, _ in evaluate_recipes(protocol, overrides)]
            assert sorted(swept) == sorted((run["fraction"], run["seed"]) for run in job.runs)


def seeds_at_all_labels(plan: Plan) -> set[int]:
    return {run["seed"] for run in plan.runs if run["fraction"] == 1}


@pytest.mark.parametrize(
    ("evaluation", "seeds"),
    [
        ({"protocol": "linear_probe"}, {3}),
        ({"protocol": "knn", "set": {"k": [1]}}, {3}),
        ({"protocol": "knn", "set": {"channels": "adapt"}}, {3}),
        ({"protocol": "linear_probe", "set": {"solver": "lbfgs", "noise.kind": "none"}}, {3}),
        ({"protocol": "linear_probe", "set": {"solver": "sgd"}}, {3, 1}),
        ({"protocol": "knn", "set": {"noise": {"kind": "gaussian", "sigma": 0.1, "at": "test"}}}, {3, 1}),
        ({"protocol": "finetune"}, {3, 1}),
        ({"protocol": "segment"}, {3, 1}),
    ],
    ids=str,
)
def test_what_does_not_depend_on_the_evaluation_seed_is_planned_for_the_first_one(plan, evaluation, seeds):
    """At all labels, L-BFGS and the votes of neighbours draw nothing; adapted channels are computed, not drawn."""
    assert seeds_at_all_labels(plan(evaluations=[{**evaluation, "seeds": [3, 1]}])) == seeds


def test_the_first_seed_that_is_not_skipped_is_planned_and_other_settings_are_planned_beside_it(plan):
    evaluations = [{"protocol": "knn", "seeds": 3}]
    skipped = plan(evaluations=evaluations, skip=[{"seed": 0}])
    assert seeds_at_all_labels(skipped) == {1}
    other = plan(evaluations=evaluations, set=[{"seed": 2, "to": {"k": [7]}}])
    assert seeds_at_all_labels(other) == {0, 2}


def test_results_of_other_draws_are_in_other_folders_and_jobs(plan, monkeypatch):
    before = plan()
    monkeypatch.setattr("ssl_transfer.study.planning.draw_seed", lambda pretraining_seed, seed: seed)
    after = plan()
    assert not {run["result"] for run in before.runs} & {run["result"] for run in after.runs}
    made = [{job.id for job in found.jobs if job.stage != "evaluate"} for found in (before, after)]
    assert made[0] == made[1]


def test_the_folds_of_a_ranking_are_drawn_as_evaluations_are(plan):
    jobs = [job for job in plan(rank={"tasks": ["region"], "set": {"seed": 4}}).jobs if job.stage == "rank"]
    words = {(job.about["seed"], word) for job in jobs for word in job.command if word.startswith("seed=")}
    assert words == {(seed, f"seed={draw_seed(seed, 4)}") for seed in (0, 1)}
    assert len({job.cost["kind"] for job in jobs}) == 4  # one per arm: the seed does not change what it costs


def test_a_pretraining_with_more_seeds_has_more_runs_and_its_parent_must_have_them(plan):
    arms = {**STUDY["pretrainings"], "photographs": {"store": "photographs", "seeds": 3}}
    runs = Counter((run["pretraining"], run["pretraining_seed"]) for run in plan(pretrainings=arms).runs)
    assert {seed for arm, seed in runs if arm == "photographs"} == {0, 1, 2}
    assert {seed for arm, seed in runs if arm == "photographs → CT"} == {0, 1}


def test_jobs_come_after_what_they_need(plan):
    seen: set[str] = set()
    for job in plan().jobs:
        assert set(job.inputs) <= seen
        seen.add(job.id)


def test_a_chain_starts_from_the_parent_of_its_own_seed(plan):
    jobs = {job.title: job for job in plan().jobs}
    for seed in (0, 1):
        parent, child = jobs[f"pretrain photographs, seed {seed}"], jobs[f"pretrain photographs → CT, seed {seed}"]
        assert parent.id in child.inputs


def distilled(teacher):
    """Two arms: one of photographs, and one of CT slices that is distilled from a teacher."""
    method = {"name": "distill", "teacher": teacher, "queue": "32"}
    arms = {"photographs": {"store": "photographs"}, "distilled": {"store": "ct", "set": {"method": method}}}
    return small(pretrainings=arms)


def test_a_teacher_is_the_arm_of_its_name_at_the_same_seed_and_no_boundary_is_known_before_the_results(plan):
    planned = plan(**distilled("photographs"))
    outputs = {job.title: job.output for job in planned.jobs}
    for seed in (0, 1):
        (job,) = [job for job in planned.jobs if job.title == f"pretrain distilled, seed {seed}"]
        teacher = f"{outputs[f'pretrain photographs, seed {seed}']}/backbone"
        assert read_yaml(Path(job.command[job.command.index("pretrain") + 1]))["method"]["teacher"] == teacher
    (arm,) = [arm for arm in planned.arms if arm["name"] == "distilled"]
    assert arm["teacher"] == "photographs" and ("distilled", "region") not in planned_boundaries(planned)


def test_a_changed_teacher_repeats_what_was_distilled_from_it(plan):
    def of_distilled(teacher):
        return {job.id for job in plan(**distilled(teacher)).jobs if job.title.startswith("pretrain distilled")}

    assert len(of_distilled("timm:resnet10t") | of_distilled("timm:resnet18") | of_distilled("photographs")) == 6


def test_a_mixture_names_its_stores_and_shares(plan):
    arms = {"both": {"mix": {"ct": 0.25, "photographs": 0.75}}, "scratch": STUDY["pretrainings"]["scratch"]}
    job = next(job for job in plan(pretrainings=arms).jobs if job.title == "pretrain both, seed 0")
    written = Path(job.words[1]).read_text()
    assert len(job.inputs) == 2 and "share: 0.25" in written and "share: 0.75" in written


def test_a_study_can_vary_whether_kernels_are_deterministic(plan):
    kernels = {"fixed": {"train.deterministic": True}, "timed": {}}
    jobs = plan(**small(vary={"kernels": kernels})).jobs
    recipes = {job.about["arm"]: Path(job.words[1]).read_text() for job in jobs if job.stage == "pretrain"}
    stated = {arm: "deterministic: true" in text for arm, text in recipes.items()}
    assert sum(stated.values()) == len(stated) / 2 > 0
    assert all(("fixed" in arm) == fixed for arm, fixed in stated.items())


def test_what_varies_makes_arms_that_are_compared_where_one_factor_differs(tmp_path):
    vary = {"size": {"big": {"data.size": 64}, "small": {}}, "method": {"a": {}, "b": {}}}
    recipe = load_study(write_study(tmp_path, **small(vary=vary)))
    arms = [{"name": arm.name, "factors": arm.factors} for arm in arms_of(recipe)]
    assert [arm["name"] for arm in arms][:2] == ["CT · big · a", "CT · big · b"] and len(arms) == 8
    pairs = compared(arms)
    assert len(pairs) == 12 and ("CT · big · a", "CT · small · b") not in pairs


def test_skipped_runs_and_what_only_they_needed_are_gone(plan):
    whole, part = plan(), plan(skip=[{"pretraining": "CT"}, {"task": "region", "fraction": 1.0, "protocol": "knn"}])
    assert "pretrain CT, seed 0" in titles(whole, "pretrain") and "pretrain CT, seed 0" not in titles(part, "pretrain")
    assert {run["fraction"] for run in part.runs if run["protocol"] == "knn"} == {0.5}


def test_the_same_evaluation_with_and_without_noise_is_two(plan):
    noisy = {"protocol": "knn", "set": {"noise.kind": "gaussian", "noise.sigma": 0.1}}
    both = plan(evaluations=[{"protocol": "knn"}, noisy])
    assert len(list(both.runs)) == 16 and titles(both, "features") == titles(
        plan(evaluations=[{"protocol": "knn"}]), "features"
    )


def test_an_exception_changes_the_settings_of_its_runs_alone(plan):
    changed = plan(set=[{"protocol": "finetune", "strategy": "head_only", "to": {"train.steps": 5}}])
    steps = {
        (run["strategy"], next(word for word in job.command if word.startswith("train.steps")))
        for job in changed.jobs
        for run in job.runs
        if run["protocol"] == "finetune"
    }
    assert steps == {("full", "train.steps=2"), ("head_only", "train.steps=5")}


@pytest.mark.parametrize(
    ("change", "renewed"),
    [
        ({"title": "Other words"}, set()),
        (
            {
                "tasks": {
                    **STUDY["tasks"],
                    "organs": {"card": "phantom_organs", "store": "ct", "set": {"metric": "dice"}},
                }
            },
            {"segment"},
        ),
        ({"pretraining_seeds": [0, 1, 2]}, set()),
    ],
    ids=["title", "task card", "one more seed"],
)
def test_a_change_repeats_only_the_jobs_that_depend_on_it(plan, change, renewed):
    before, after = plan(), plan(**change)
    gone = {job.id for job in before.jobs} - {job.id for job in after.jobs}
    assert {run["protocol"] for job in before.jobs if job.id in gone for run in job.runs} == renewed


def test_a_changed_arm_is_repeated_with_the_arms_that_start_from_it(plan):
    arms = {**STUDY["pretrainings"], "photographs": {"store": "photographs", "set": {"train.epochs": 4}}}
    before, after = plan(), plan(pretrainings=arms)
    gone = {job.id for job in before.jobs} - {job.id for job in after.jobs}
    renewed = {job.title for job in before.jobs if job.id in gone and job.stage == "pretrain"}
    assert renewed == {f"pretrain photographs{arrow}, seed {seed}" for arrow in ("", " → CT") for seed in (0, 1)}


def test_one_more_fraction_keeps_the_results_that_are_there(plan):
    more = [{**STUDY["evaluations"][0], "fractions": [0.25, 0.5, 1.0]}, *STUDY["evaluations"][1:]]
    before = {run["result"] for run in plan().runs}
    assert before < {run["result"] for run in plan(evaluations=more).runs}


def test_a_plan_that_is_read_is_the_plan_that_was_written(plan):
    written = plan()
    written.save()
    assert vars(Plan.load("studies/tiny")) == vars(written)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"evaluations": [{"protocol": "linear_prob"}]},
            "evaluations.0: No protocol is called 'linear_prob'. Did you mean",
        ),
        ({"pretrainings": {"CT": {"store": "ctt"}}}, "pretrainings.CT: no store 'ctt'. Did you mean 'ct'"),
        (
            {"pretrainings": {"CT": {"store": "ct", "inti": "x"}}},
            "pretrainings.CT takes no such option. Did you mean 'init'",
        ),
        ({"skip": [{"tasks": "region"}]}, "Did you mean 'task'"),
        ({"statistics": {"primary": {"protocol": "knn"}}}, "statistics.primary.0.metric"),
        ({"skip": [{"protocol": ["linear_probe", "knn", "finetune", "segment"]}]}, "no run is left"),
        (
            {"evaluations": [{"protocol": "segment", "tasks": ["region"]}]},
            "segment cannot score region, which is multiclass. Take linear_probe",
        ),
        ({"evaluations": [{"protocol": "knn"}, {"protocol": "knn", "set": {"k": [1]}}]}, "no table could hold both"),
        ({"tasks": {"region": "no_such_card"}}, "no_such_card: neither a task card nor a name in"),
        (
            {"pretrainings": {"a": {"store": "ct", "init": "b"}, "b": {"store": "ct", "init": "a"}}},
            "a → b → a is a cycle",
        ),
        ({"resources": {"pretrian": {"gpus": 1}}}, "no jobs of kind 'pretrian'. Did you mean 'pretrain'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_input_is_refused_with_what_to_do(plan, change, message):
    with pytest.raises(RecipeError) as error:
        plan(**change)
    assert message in str(error.value)


def test_a_block_with_a_name_replaces_and_any_other_is_laid_over():
    words = assignments({"data": {"size": "64", "views": {"name": "ct"}}, "train.epochs": 3, "x": None})
    assert words == ["data.size=64", 'data.views={"name": "ct"}', "train.epochs=3", "x=null"]


def test_there_are_five_studies_of_the_literature_each_with_a_mini_version_and_one_with_a_longer_one():
    names = ["benchmark", "in_vs_cross_domain", "multistage", "realworld_features", "strategies"]
    expected = [*names, *(f"{name}_mini" for name in names), "benchmark_longer_mini", "quickstart", "quickstart_tiny"]
    assert [path.stem for path in STUDIES] == sorted(expected)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_head_of_a_study_says_what_it_decides_its_power_its_looks_and_its_cost(path):
    head = path.read_text().partition("title:")[0]
    assert [word for word in ("Decides", "Power", "Looks", "Cost") if f"\n# {word}: " not in head] == []


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_cost_in_the_head_of_a_study_is_that_of_its_plan(path, shipped):
    (stated,) = re.findall(r"^# Cost: (?:about )?(\d+) (minutes|hours)", path.read_text(), re.M)
    _, _, plan = shipped(path)
    hours = Costs().estimate(plan.jobs).hours
    assert float(stated[0]) == pytest.approx(hours * {"minutes": 60, "hours": 1}[stated[1]], rel=0.05, abs=1)


@pytest.mark.long
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_detectable_differences_in_the_head_of_a_study_are_those_of_its_power(path, tmp_path):
    from ssl_transfer.study.power import StudyPower

    stated = re.search(
        r"(\d+) seeds detect ([\d.]+)(?: to ([\d.]+))? with 80 %", re.sub(r"\n#\s+", " ", path.read_text())
    )
    answers = StudyPower(plan_study(load_study(path), tmp_path, write=False)).answer()
    last = [answer["looks"][-1] for answer in answers if answer["family"] == "primary" and answer.get("looks")]
    if stated is None:  # public weights without trained arms, or too small to decide anything
        assert not last or "tiny" in path.stem
        return
    assert {look["seeds"] for look in last} == {int(stated[1])}
    detectable = sorted(look["detectable"] for look in last)
    assert [detectable[0], detectable[-1]] == pytest.approx([float(stated[2]), float(stated[3] or stated[2])], rel=0.03)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_of_the_literature_plans(path, shipped):
    _, study, plan = shipped(path)
    assert sum(1 for _ in plan.runs) > 40
    assert {primary.protocol for primary in study.statistics.primary} <= {run["protocol"] for run in plan.runs}


def test_a_plan_can_be_made_without_writing(tmp_path):
    plan_study(load_study(ROOT / "recipes/studies/quickstart_tiny.yaml"), tmp_path, write=False)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_recipe_and_setting_of_a_study_is_one_that_its_stage_takes(path, shipped, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, _, plan = shipped(path)
    check_settings(plan, check)


@pytest.mark.parametrize("path", [path for path in STUDIES if "mini" in path.stem], ids=lambda path: path.stem)
def test_a_mini_version_takes_two_cores_at_most_45_minutes_by_its_estimate_and_trains_on_at_most_2000_images(
    path, shipped
):
    folder, _, plan = shipped(path)
    minutes = 55 if "longer" in path.stem else 45
    assert sum(Costs().seconds(job) * job.resources["cpus"] for job in plan.jobs) <= 2 * minutes * 60
    limits = [read_yaml(card)["data"]["limit"] for card in (folder / "recipes").glob("*.yaml")]
    assert limits and all(int(limit) <= 2000 for limit in limits)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_trained_arms_of_a_study_take_equally_many_steps(path, shipped):
    """Also a chain: the steps of its parent count. Public weights are marked as an unequal budget in the report."""
    _, _, plan = shipped(path)
    jobs = {job.id: job for job in plan.jobs}
    read_recipe = cache(read_yaml)

    def steps(job):
        recipe = read_recipe(Path(job.words[1]))
        train, limit = recipe["train"], recipe["data"]["limit"]
        own = float(train["epochs"]) * (int(limit) // int(train["batch_size"]) if limit else 1)
        return own + sum(steps(jobs[needed]) for needed in job.inputs if jobs[needed].stage == "pretrain")

    evaluated = {arm["name"] for arm in plan.arms if not arm["untrained"]}
    budgets = [steps(job) for job in plan.jobs if job.stage == "pretrain" and job.about["arm"] in evaluated]
    assert not budgets or max(budgets) <= 1.01 * min(budgets)  # whole steps of stores of other sizes


def test_the_benchmark_has_five_thousand_runs(shipped):
    _, _, plan = shipped(ROOT / "recipes/studies/benchmark.yaml")
    assert sum(1 for _ in plan.runs) >= 5000


def test_planning_loads_neither_torch_nor_timm(tmp_path):
    code = (
        "import sys\nfrom ssl_transfer.cli import main\n"
        "main(['study', 'plan', 'benchmark', '--dry-run', '--json'])\n"
        "print({'torch', 'timm', 'lightly', 'monai', 'pandas'} & set(sys.modules))"
    )
    answer = run([sys.executable, "-c", code], ROOT)
    assert answer.stdout.splitlines()[-1] == "set()", answer.stderr
