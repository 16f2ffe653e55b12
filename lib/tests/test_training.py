"""The shared loop learns, repeats itself bit by bit, and leaves the global generator alone."""

import io
import itertools
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from explainers import training


@pytest.fixture
def blobs():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(120) % 3
    centres = torch.tensor([[0.0, 4.0], [4.0, 0.0], [-4.0, -4.0]])
    return centres[targets] + torch.randn(120, 2, generator=generator), targets


def test_it_learns(blobs):
    inputs, targets = blobs
    model = training.mlp([2, 16, 3], seed=0)
    before = training.accuracy(model, inputs, targets)
    training.fit_classifier(model, inputs, targets, epochs=20, lr=0.03, seed=0)
    assert training.accuracy(model, inputs, targets) > max(0.95, before)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(blobs):
    def weights(seed):
        model = training.fit_classifier(training.mlp([2, 8, 3], seed=seed), *blobs, epochs=2, seed=seed)
        return torch.cat([p.detach().ravel() for p in model.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_the_order_of_batches_depends_on_the_seed(blobs):
    a, b = (training.fit_classifier(training.mlp([2, 8, 3], seed=0), *blobs, epochs=1, seed=s) for s in (0, 1))
    assert not torch.equal(a[0].weight, b[0].weight)


def test_the_global_generator_is_left_alone(blobs):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    training.fit_classifier(training.mlp([2, 8, 3], seed=5), *blobs, epochs=1, seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_he_initialisation():
    layer = training.mlp([400, 300], seed=0)[0]
    assert layer.weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert not layer.bias.any()
    assert training.mlp([4, 3], seed=0, bias=False)[0].bias is None


def test_the_model_comes_back_in_evaluation_mode(blobs):
    assert not training.fit_classifier(training.mlp([2, 3], seed=0), *blobs, epochs=1).training


def test_accuracy_counts():
    model = torch.nn.Identity()
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert training.accuracy(model, logits, torch.tensor([1, 0, 0, 1])) == 0.75


def test_bad_inputs(blobs):
    inputs, targets = blobs
    model = training.mlp([2, 3], seed=0)
    with pytest.raises(ValueError, match="got 120 and 119"):
        training.fit_classifier(model, inputs, targets[1:], epochs=1)
    with pytest.raises(ValueError, match="got 0 and 0"):
        training.fit_classifier(model, inputs[:0], targets[:0], epochs=1)
    with pytest.raises(ValueError, match="must be positive, got 0 and 64"):
        training.fit_classifier(model, inputs, targets, epochs=0)
    with pytest.raises(ValueError, match="must be positive, got 1 and 0"):
        training.fit_classifier(model, inputs, targets, epochs=1, batch_size=0)
    with pytest.raises(ValueError, match="input and an output width"):
        training.mlp([2], seed=0)


# ---------------------------------------------------------------- the loop of the Transformer chapters


@pytest.fixture
def curve():
    x = torch.linspace(-1, 1, 60)[:, None]
    return x, x**2


def squares(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def run(curve, *, model_seed=0, dropout=0.0, **options):
    model = training.mlp([1, 16, 1], seed=model_seed)
    model.insert(1, torch.nn.Dropout(dropout))
    settings = {"steps": 60, "lr": 0.01, **options}
    history = training.fit(model, squares, training.shuffled(*curve, batch_size=20), **settings)
    return model, history


def weights(model):
    return torch.cat([p.detach().ravel() for p in model.parameters()])


def test_the_loop_is_adam_written_out(curve):
    """Against the loop that anyone would write, with a schedule and clipping, to the last bit."""
    model, history = run(curve, warmup=10, schedule="linear", clip=0.05, weight_decay=0.1, seed=4)
    peer = training.mlp([1, 16, 1], seed=0)
    optimizer = torch.optim.AdamW(peer.parameters(), betas=(0.9, 0.98), weight_decay=0.1)
    batches = training.shuffled(*curve, batch_size=20)(torch.Generator().manual_seed(4))
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 0.01 * (min(1, (step + 1) / 10) if step < 10 else 1 - (step - 10) / 50)
        optimizer.zero_grad()
        loss = squares(peer, next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 0.05)
        optimizer.step()
        assert history.losses[step] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert torch.allclose(weights(model), weights(peer), atol=1e-6)


def test_clipping_and_schedule_change_the_run(curve):
    plain = weights(run(curve)[0])
    for options in ({"clip": 1e-3, "weight_decay": 0.1}, {"warmup": 30}, {"schedule": "cosine"}):
        assert not torch.allclose(weights(run(curve, **options)[0]), plain, atol=1e-4)


def test_the_loop_repeats_itself_and_leaves_the_global_generator_alone(curve):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = weights(run(curve, dropout=0.5, seed=1)[0])
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, weights(run(curve, dropout=0.5, seed=1)[0]))
    assert not torch.equal(first, weights(run(curve, dropout=0.5, seed=2)[0]))


def test_evaluations_come_on_time_in_eval_mode(curve):
    modes = []

    def evaluate(model):
        modes.append((model.training, torch.is_grad_enabled()))
        return training.mean_loss(squares, [curve])(model)

    model, history = run(curve, steps=25, every=10, evaluate=evaluate, dropout=0.5)
    assert [step for step, _ in history.evaluations] == [10, 20, 25]
    assert set(modes) == {(False, False)}
    assert not model.training
    assert history.final == pytest.approx(float(squares(model, curve).detach()), rel=1e-5)
    assert len(history.losses) == 25
    assert not history.stopped


def test_patience_stops_and_brings_the_best_weights_back(curve):
    values = iter([3.0, 2.0, 2.5, 2.5, 2.5])
    seen = []

    def evaluate(model):
        seen.append(weights(model))
        return next(values)

    model, history = run(curve, steps=100, every=5, patience=2, evaluate=evaluate)
    assert history.stopped
    assert [value for _, value in history.evaluations] == [3.0, 2.0, 2.5, 2.5]
    assert history.best == 10
    assert torch.equal(weights(model), seen[1])
    assert not torch.equal(weights(model), seen[3])


def test_training_ends_with_the_batches(curve):
    model = training.mlp([1, 4, 1], seed=0)
    history = training.fit(model, squares, lambda generator: [curve] * 3, steps=10)
    assert len(history.losses) == 3


def test_it_warns_of_nothing_and_shows_no_bar_unless_asked(curve, recwarn, capfd, monkeypatch):
    run(curve, steps=5)
    assert capfd.readouterr() == ("", "")
    assert not [str(w.message) for w in recwarn]
    run(curve, steps=5, progress=True)
    assert "/5 [" in capfd.readouterr().err
    monkeypatch.setenv("EXPLAINERS_PROGRESS", "1")
    run(curve, steps=5)
    assert "/5 [" in capfd.readouterr().err
    run(curve, steps=5, progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_batch_may_be_any_nest_of_tensors(curve):
    model = training.mlp([1, 4, 1], seed=0)
    loss = lambda model, batch: squares(model, (batch["pair"][0], batch["pair"][1]))  # noqa: E731
    history = training.fit(model, loss, lambda generator: [{"pair": curve}] * 2, steps=2)
    assert len(history.losses) == 2


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_climb_and_fall(schedule):
    factors = [training.learning_rate(t, 100, schedule, warmup=20) for t in range(101)]
    assert factors[:20] == pytest.approx([(t + 1) / 20 for t in range(20)])
    assert factors[20] == 1
    assert factors[60] == pytest.approx(1.0 if schedule == "constant" else 0.5)
    assert factors[100] == pytest.approx(1.0 if schedule == "constant" else 0.0)
    assert all(a >= b for a, b in itertools.pairwise(factors[20:]))


def test_shuffled_gives_every_row_once_a_pass():
    batches = training.shuffled(torch.arange(10), torch.arange(10) * 2, batch_size=4)(torch.Generator().manual_seed(0))
    first = [next(batches) for _ in range(3)]
    rows = torch.cat([a for a, _ in first])
    assert sorted(rows.tolist()) == list(range(10))
    assert torch.equal(torch.cat([b for _, b in first]), 2 * rows)
    assert rows.tolist() != torch.cat([next(batches)[0] for _ in range(3)]).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps and lr must be positive"),
        ({"lr": -1.0}, "steps and lr must be positive"),
        ({"warmup": 61}, "warmup must be in"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"every": 5}, "every needs evaluate"),
        ({"patience": 2, "evaluate": lambda model: 0.0}, "patience needs every"),
        ({"schedule": "step"}, "'constant', 'linear' or 'cosine', got 'step'"),
    ],
)
def test_settings_that_do_not_fit(curve, options, message):
    with pytest.raises(ValueError, match=message):
        run(curve, **options)


def test_shuffled_refuses_unequal_tensors():
    with pytest.raises(ValueError, match="one positive length"):
        training.shuffled(torch.zeros(3), torch.zeros(4), batch_size=2)


def test_fabric_is_imported_on_first_use_only():
    code = "import sys, explainers.training; sys.exit('lightning_fabric' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from explainers import training
model = training.mlp([1, 4, 1], seed=0)
x = torch.linspace(-1, 1, 60)[:, None]
squares = lambda model, batch: (model(batch[0]) - batch[1]).square().mean()
history = training.fit(model, squares, training.shuffled(x, x**2, batch_size=20), steps=20,
                       evaluate=training.mean_loss(squares, [(x, x**2)]))
found = [history.losses[0], history.final, model[0].weight.sum().item()]
Path(sys.argv[1], os.environ["LOCAL_RANK"]).write_text(json.dumps(found))
"""


def test_several_processes_share_gradients_but_not_batches(tmp_path):
    """`fabric run` starts two processes: other first losses, the same weights and evaluation at the end."""
    (tmp_path / "job.py").write_text(SCRIPT)
    launcher = [str(Path(sys.executable).with_name("fabric")), "run", "--accelerator", "cpu", "--devices", "2"]
    subprocess.run(
        [*launcher, "--strategy", "ddp", str(tmp_path / "job.py"), str(tmp_path)],
        capture_output=True, timeout=120, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    results = [json.loads((tmp_path / rank).read_text()) for rank in "01"]
    assert results[0][0] != results[1][0]
    assert results[0][1:] == results[1][1:]


# ---------------------------------------------------------------- found by `make mutate`


def test_batches_of_one_row_and_evaluations_after_each_step_are_allowed(blobs):
    inputs, targets = blobs[0][:4], blobs[1][:4]
    training.fit_classifier(training.mlp([2, 3], seed=0), inputs, targets, epochs=1, batch_size=1)
    batches = training.shuffled(inputs, targets, batch_size=1)
    assert [len(x) for x, _ in itertools.islice(batches(torch.Generator()), 3)] == [1, 1, 1]
    loss = lambda model, batch: model(batch[0]).square().mean()  # noqa: E731
    history = training.fit(
        training.mlp([2, 3], seed=0), loss, batches, steps=3, lr=0.1, evaluate=lambda model: 1.0, every=1, patience=3
    )
    assert [at for at, _ in history.evaluations] == [1, 2, 3]
    assert not history.stopped
    with pytest.raises(ValueError, match="epochs and batch_size must be positive"):
        training.fit_classifier(training.mlp([2, 3], seed=0), inputs, targets, epochs=1, batch_size=0)


def test_accuracy_reads_the_last_axis():
    logits = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])  # a batch of sequences
    assert training.accuracy(torch.nn.Identity(), logits, torch.tensor([[0, 1, 1]])) == pytest.approx(2 / 3)


def test_a_history_begins_empty():
    history = training.History()
    assert (history.losses, history.evaluations, history.best, history.stopped) == ([], [], None, False)


def test_there_is_no_warm_up_unless_asked_for(blobs):
    """With SGD-like steps of Adam, the first step of lr 0.1 moves a weight by 0.1."""
    model = training.mlp([2, 3], seed=0)
    before = model[0].weight.detach().clone()
    loss = lambda model, batch: model(batch[0]).square().mean()  # noqa: E731
    batches = training.shuffled(*blobs, batch_size=120)
    training.fit(model, loss, batches, steps=1, lr=0.1, weight_decay=0.0)
    assert (model[0].weight - before).abs().max().item() == pytest.approx(0.1, rel=1e-3)


def test_a_model_comes_back_in_evaluation_mode_even_if_nothing_is_evaluated(blobs):
    model = training.mlp([2, 3], seed=0)
    loss = lambda model, batch: model(batch[0]).square().mean()  # noqa: E731
    training.fit(model, loss, training.shuffled(*blobs, batch_size=8), steps=1, lr=0.1)
    assert not model.training


class Watched(torch.nn.Module):
    """A network that notes in which mode it is called: training or not, with a graph or without."""

    def __init__(self, sizes, modes):
        super().__init__()
        self.net, self.modes = training.mlp(sizes, seed=0), modes

    def forward(self, x):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return self.net(x)


def test_a_model_handed_over_in_evaluation_mode_is_trained_in_training_mode(blobs, curve):
    modes = []
    training.fit_classifier(Watched([2, 3], modes).eval(), *blobs, epochs=1)
    assert set(modes) == {(True, True)}
    modes.clear()
    value = training.mean_loss(squares, [curve])
    batches = training.shuffled(*curve, batch_size=30)
    training.fit(Watched([1, 1], modes).eval(), squares, batches, steps=3, evaluate=value, every=1)
    assert modes == [(True, True), (False, False)] * 3


def test_what_only_measures_makes_no_graph(blobs, curve):
    modes = []
    training.accuracy(Watched([2, 3], modes), *blobs)
    training.mean_loss(squares, [curve])(Watched([1, 1], modes))
    assert [graph for _, graph in modes] == [False, False]


def test_a_mean_loss_is_the_mean_over_batches(curve):
    x, y = curve
    model = training.mlp([1, 1], seed=0)
    parts = [(x[:50], y[:50]), (x[50:], y[50:])]  # of unequal size, of equal weight
    wanted = (float(squares(model, parts[0]).detach()) + float(squares(model, parts[1]).detach())) / 2
    assert training.mean_loss(squares, parts)(model) == pytest.approx(wanted, rel=1e-6)


def test_the_classifier_is_adam_written_out(blobs):
    """Against the loop that anyone would write, with the step size and the batches of the defaults."""
    inputs, targets = blobs
    model = training.fit_classifier(training.mlp([2, 8, 3], seed=0), inputs, targets, epochs=3)
    peer, order = training.mlp([2, 8, 3], seed=0), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(peer.parameters(), lr=0.003)
    for _ in range(3):
        for batch in torch.randperm(120, generator=order).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(peer(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    torch.testing.assert_close(weights(model), weights(peer))


def test_weights_are_drawn_around_zero():
    weight = training.mlp([400, 300], seed=0)[0].weight
    assert abs(float(weight.detach().mean())) < 1e-3  # the mean of 120 000 numbers of spread 0.07


def test_the_plain_settings_of_the_loop_are_those_it_states(curve):
    def trained(**options):
        model = training.mlp([1, 8, 1], seed=0)
        training.fit(model, squares, training.shuffled(*curve, batch_size=20), steps=6, **options)
        return weights(model)

    spelled = {"lr": 1e-3, "warmup": 0, "clip": None, "betas": (0.9, 0.98), "weight_decay": 0.0, "seed": 0}
    assert torch.equal(trained(), trained(schedule="constant", **spelled))
    assert torch.equal(trained(schedule="linear"), trained(schedule="linear", **spelled))


def test_a_schedule_climbs_only_if_asked_to():
    assert [training.learning_rate(t, 4, "linear") for t in range(5)] == [1, 0.75, 0.5, 0.25, 0]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_run_may_be_all_warm_up_or_all_but_one_step(curve, schedule):
    assert training.learning_rate(2, 3, schedule, warmup=3) == 1
    assert training.learning_rate(3, 3, schedule, warmup=3) == 1
    assert training.learning_rate(3, 3, schedule, warmup=2) == pytest.approx(float(schedule == "constant"))
    _, history = run(curve, steps=3, warmup=3, schedule=schedule)
    assert len(history.losses) == 3


def test_an_unknown_schedule_is_refused_before_fabric_is_started(curve, monkeypatch):
    monkeypatch.setattr(training, "_fabric", lambda: pytest.fail("started"))
    with pytest.raises(ValueError, match="got 'step'"):
        run(curve, schedule="step")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "steps and lr must be positive, got 60 and 0.0"),
        ({"warmup": -1}, "warmup must be in 0..steps = 60, got -1"),
        ({"every": 0, "evaluate": lambda model: 0.0}, "must be at least 1, got 0"),
        ({"every": 5, "patience": 0, "evaluate": lambda model: 0.0}, "must be at least 1, got 0"),
    ],
)
def test_settings_one_step_beyond_the_border(curve, options, message):
    with pytest.raises(ValueError, match=message):
        run(curve, **options)


def test_patience_of_one_stops_at_the_first_evaluation_that_is_no_better(curve):
    values = iter([3.0, 2.0, 2.0])  # an equal value is not a new best
    _, history = run(curve, steps=100, every=1, patience=1, evaluate=lambda model: next(values))
    assert (history.stopped, history.best, len(history.evaluations)) == (True, 2, 3)


def test_of_equal_evaluations_the_first_is_the_best(curve):
    seen = []

    def evaluate(model):
        seen.append(weights(model))
        return 2.0

    model, history = run(curve, steps=6, every=2, patience=9, evaluate=evaluate)
    assert history.best == 2
    assert torch.equal(weights(model), seen[0])
    assert not torch.equal(weights(model), seen[2])


def test_evaluations_that_are_never_a_number_run_out_of_patience(curve):
    _, history = run(curve, steps=9, every=1, patience=2, evaluate=lambda model: float("nan"))
    assert [at for at, _ in history.evaluations] == [1, 2]
    assert (history.stopped, history.best) == (True, None)


def test_a_single_step_is_evaluated_and_no_step_is_not(curve):
    _, history = run(curve, steps=1, evaluate=lambda model: 0.5)
    assert (history.evaluations, history.best) == ([(1, 0.5)], 1)
    model = training.mlp([1, 4, 1], seed=0)
    history = training.fit(model, squares, lambda generator: [], steps=3, evaluate=lambda model: 0.5)
    assert (history.losses, history.evaluations) == ([], [])


@pytest.mark.parametrize(("tensors", "batch_size"), [([torch.zeros(0)], 2), ([torch.zeros(3)], 0), ([], 2)])
def test_shuffled_refuses_no_rows_and_empty_batches(tensors, batch_size):
    with pytest.raises(ValueError, match="one positive length and batch_size >= 1"):
        training.shuffled(*tensors, batch_size=batch_size)


def test_shuffled_takes_a_single_row():
    batches = training.shuffled(torch.tensor([7]), batch_size=2)(torch.Generator().manual_seed(0))
    assert [next(batches)[0].tolist() for _ in range(2)] == [[7], [7]]


@pytest.mark.parametrize(("launched_by", "given"), [(None, {"accelerator": "auto", "devices": 1}), ("1", {})])
def test_one_device_by_default_and_under_fabric_run_what_its_command_line_asks_for(monkeypatch, launched_by, given):
    import lightning_fabric

    asked, launches = [], []

    class Recorder:
        def __init__(self, **options):
            asked.append(options)

        def launch(self):
            launches.append(1)

    monkeypatch.setattr(lightning_fabric, "Fabric", Recorder)
    if launched_by is None:
        monkeypatch.delenv("LT_CLI_USED", raising=False)
    else:
        monkeypatch.setenv("LT_CLI_USED", launched_by)
    training._fabric()
    assert asked == [given]
    assert len(launches) == bool(given)  # `fabric run` has launched its processes itself


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "rank", "shown"), [(None, 0, True), (True, 0, True), (False, 0, False), (True, 1, False)]
)
def test_a_terminal_sees_one_bar_that_counts_steps_and_is_wiped_out(monkeypatch, progress, rank, shown):
    monkeypatch.delenv("EXPLAINERS_PROGRESS", raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(training._bar(range(4), 4, progress, types.SimpleNamespace(global_rank=rank))) == [0, 1, 2, 3]
    written = sys.stderr.getvalue()
    if shown:
        assert "0/4 [" in written
        assert "step/s" in written
        assert written.endswith("\r")
        assert not written.rpartition("\r")[0].rpartition("\r")[2].strip()
    else:
        assert written == ""
