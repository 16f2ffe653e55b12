"""Tests of explainers.matching: the contest's files, the pairs, the scores, the batches and the network."""

from __future__ import annotations

import json
import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_recall_curve

from explainers import matching
from explainers._corpus_fields import make_doc
from explainers.matching import (
    SOHU_FILES,
    SOHU_FOLDERS,
    TASKS,
    Lexicon,
    Matcher,
    Pair,
    PairTensors,
    Record,
    Tokens,
    best_threshold,
    bucket_batches,
    build_pairs,
    competition_score,
    docstring_records,
    fit_matcher,
    hide_name,
    kind_of,
    late_interaction,
    pad_tokens,
    padding_fraction,
    probabilities,
    read_pairs,
    read_sohu,
    split_by_topic,
    two_texts,
)

# --- The contest's files ------------------------------------------------------------------------------------


def write_lines(path, *rows):
    """Write rows as JSON lines; a row that is text stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def sohu_tree(root, splits=("train", "valid", "test")):
    for task, folder in enumerate(SOHU_FOLDERS):
        for split in splits:
            end = {"id": f"{task}-7"} if split == "test" else {f"label{'AB'[task % 2]}": str(task % 2)}
            write_lines(root / folder / SOHU_FILES[split], {"source": f"甲{task}", "target": f"乙{split}"} | end)
    return root


def test_six_folders_are_read_in_the_order_of_the_tasks(tmp_path):
    root = sohu_tree(tmp_path)
    pairs = read_sohu(root)
    assert [pair.task for pair in pairs] == list(range(6))
    assert pairs[3] == Pair("甲3", "乙train", 3, 1, None)
    assert read_sohu(root, "test")[5] == Pair("甲5", "乙test", 5, None, "5-7")
    assert [SOHU_FOLDERS[k][2:4] + TASKS[k][-1] for k in (0, 1)] == ["匹配A", "匹配B"]


def test_labels_may_be_integers_and_other_keys_and_blank_lines_do_not_matter(tmp_path):
    path = write_lines(
        tmp_path / "a.txt",
        {"source": "x", "target": "y", "labelA": 1, "note": "?"},
        "",
        {"source": "", "target": "y", "labelA": "0"},
    )
    assert [pair.label for pair in read_pairs(path, 4)] == [1, 0]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as some editors write it
    assert len(read_pairs(path, 4)) == 2


GOOD = {"source": "x", "target": "y", "labelA": "1"}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("{not json", "not JSON"),
        ('["x", "y"]', "object"),
        ({"target": "y", "labelA": "1"}, "'source'"),
        ({"source": "x", "target": 5, "labelA": "1"}, "'target'"),
        ({"source": "x", "target": "y", "labelB": "1"}, "labelB"),
        ({"source": "x", "target": "y", "labelA": "2"}, "labelA"),
        ({"source": "x", "target": "y", "labelA": True}, "labelA"),
        ({"source": "x", "target": "y", "labelA": 1.0}, "labelA"),
        ({"source": "x", "target": "y", "labelA": None}, "labelA"),
        ({"source": "x", "target": "y", "labelA": []}, "labelA"),
        ({"source": "x", "target": "y"}, "missing"),
        ({"source": "x", "target": "y", "id": 3}, "missing"),
    ],
)
def test_a_malformed_line_is_reported_with_file_number_and_field(tmp_path, bad, words):
    path = write_lines(tmp_path / "pairs.txt", GOOD, bad, GOOD)
    with pytest.raises(ValueError, match=rf"pairs\.txt, line 2: .*{words}"):
        read_pairs(path, 0)


def test_all_malformed_lines_are_named_and_skipped_only_on_request(tmp_path):
    path = write_lines(tmp_path / "pairs.txt", GOOD, "?", GOOD, GOOD | {"labelA": 7}, GOOD)
    with pytest.raises(ValueError, match=r"line 2: .*also malformed: lines 4$"):
        read_pairs(path, 2)
    with pytest.warns(UserWarning, match=r"2 of 5 lines skipped: .*line 2"):
        pairs = read_pairs(path, 2, skip_malformed=True)
    assert len(pairs) == 3


def test_a_line_that_is_not_utf8_is_reported(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + '{"source": "甲"'.encode("gb18030") + b"\n")
    with pytest.raises(ValueError, match=r"line 2: not UTF-8"):
        read_pairs(path, 0)


@pytest.mark.parametrize("task", [-1, 6, 1.0, True, "0"])
def test_unknown_tasks_are_refused(tmp_path, task):
    with pytest.raises(ValueError, match=r"task must be an integer in 0\.\.5"):
        read_pairs(write_lines(tmp_path / "a.txt", GOOD), task)


def test_missing_files_unknown_splits_and_unlabelled_training_data(tmp_path):
    root = sohu_tree(tmp_path, splits=("train",))
    with pytest.raises(FileNotFoundError, match="短短匹配A类.*valid.txt"):
        read_sohu(root, "valid")
    with pytest.raises(ValueError, match="split must be one of"):
        read_sohu(root, "dev")
    write_lines(root / SOHU_FOLDERS[2] / "train.txt", {"source": "x", "target": "y", "id": "1"})
    with pytest.raises(ValueError, match="no label"):
        read_sohu(root)


# --- Records and pairs --------------------------------------------------------------------------------------


def doc(name, topic_module, body):
    return make_doc(name.partition(".")[0], name, topic_module, "function", body)


def test_records_hide_names_drop_repeats_and_top_level_topics():
    shared = "This same sentence is inherited by many objects."
    docs = [
        doc("numpy.fft.rfft", "numpy.fft", f"Compute the rfft of real input data.\n\n{shared}"),
        doc("numpy.fft.hfft", "numpy.fft", f"Another thing that is told about signals.\n\n{shared}"),
        doc("numpy.dot", "numpy", "The product of two arrays in the usual sense."),
        doc("numpy.fft.tiny", "numpy.fft", "Too short."),
    ]
    records = docstring_records(docs)
    assert [record.name for record in records] == ["numpy.fft.rfft", "numpy.fft.hfft"]
    assert records[0].sentences == ("Compute the it of real input data.", shared)
    assert records[1].sentences == ("Another thing that is told about signals.",)


def test_records_leave_out_examples_and_lines_that_are_no_prose():
    text = (
        "A summary of five good words.\n\nParameters\n----------\nx : int\n    This one describes the number x well.\n"
    )
    text += "\nNotes\n-----\n1 + 2 - 3 * 4 / 5 = 6 7 8 9 10 so\n"
    text += "\nExamples\n--------\nThis sentence belongs to the examples section.\n"
    (record,) = docstring_records([doc("scipy.linalg.f", "scipy.linalg", text)])
    assert record.sentences == ("A summary of five good words.", "This one describes the number x well.")


@pytest.mark.parametrize(
    ("text", "name", "hidden"),
    [
        ("use linalg.SVD or svds", "scipy.linalg.svd", "use it or svds"),
        ("the fit of a fitted Model.fit", "a.Model.fit", "the it of a fitted it"),
        ("an is of is", "a.is", "an is of is"),
        ("x.partial_fit and refit", "a.fit", "x.partial_fit and refit"),
    ],
)
def test_name_hiding(text, name, hidden):
    assert hide_name(text, name) == hidden


def synthetic(packages=("aa", "bb", "cc"), topics=3, objects=8, sentences=8):
    """Records whose words tell package, topic and object."""
    return [
        Record(
            f"{p}.t{t}",
            f"{p}.t{t}.o{o}",
            tuple(
                f"{p} words of {p}{t} about {p}{t}{o} thing number {s} of this object here now"
                for s in range(sentences)
            ),
        )
        for p in packages
        for t in range(topics)
        for o in range(objects)
    ]


def test_two_texts_are_disjoint_and_within_their_lengths():
    sentences = [f"{'w ' * n}end{i}" for i, n in enumerate((3, 5, 8, 30, 12, 50, 11, 9))]
    for length, bounds in enumerate((((10, 40), (10, 40)), ((10, 40), (30, 60)), ((30, 60), (30, 60)))):
        texts = two_texts(sentences, length)
        for text, (low, high) in zip(texts, bounds):
            assert low <= len(text.split()) <= high
        ends = [set(re.findall(r"end\d", text)) for text in texts]
        assert not ends[0] & ends[1]
    assert two_texts(sentences, 0)[0] == " ".join(sentences[:2])
    assert two_texts(sentences[:2], 0) is None
    assert len(two_texts(["w " * 100, "w " * 100], 2)[1].split()) == 60
    with pytest.raises(ValueError, match="length"):
        two_texts(sentences, 3)


def test_topics_are_split_whole_by_a_hash_that_no_other_topic_moves():
    records = synthetic(packages=tuple("abcdefgh"), topics=20, objects=1)
    train, test = split_by_topic(records)
    assert not {r.topic for r in train} & {r.topic for r in test}
    assert sorted(train + test) == sorted(records)
    assert 0.1 < len(test) / len(records) < 0.4
    fewer, _ = split_by_topic(records[::3])
    assert set(fewer) <= set(train)
    with pytest.raises(ValueError, match="fraction"):
        split_by_topic(records, 1.0)


@pytest.mark.parametrize("positive", [0.5, 0.3])
def test_pairs_have_the_promised_kinds_and_labels(positive):
    records = synthetic()
    topic = {r.name: r.topic for r in records}
    pairs = build_pairs(records, 20, seed=3, positive=positive)
    matches = round(20 * positive)
    assert Counter(pair.task for pair in pairs) == dict.fromkeys(range(6), 20)
    for pair in pairs:
        one, two = pair.id.split(" | ")
        kind = kind_of(pair)
        assert (kind == "same object") == (one == two)
        assert (kind == "other package") == (one[:2] != two[:2])
        assert kind == "other package" or topic[one] == topic[two]
        assert pair.label == {"same object": 1, "same topic": 1 - pair.task % 2, "other package": 0}[kind]
        assert (
            not {*re.findall(r"number \d of", pair.source)} & {*re.findall(r"number \d of", pair.target)} or one != two
        )
    for task in range(6):
        kinds = Counter(kind_of(pair) for pair in pairs if pair.task == task)
        assert kinds["same object"] == (matches if task % 2 else round(0.2 * matches))
        assert sum(pair.label for pair in pairs if pair.task == task) == matches
        assert len({pair.id for pair in pairs if pair.task == task}) == 20


def test_pairs_repeat_with_the_seed_and_only_with_it():
    records = synthetic()
    assert build_pairs(records, 10, seed=1) == build_pairs(records, 10, seed=1)
    assert build_pairs(records, 10, seed=1) != build_pairs(records, 10, seed=2)


def test_near_negatives_come_from_the_same_package():
    records = synthetic()
    topic = {r.name: r.topic for r in records}
    pairs = [p for p in build_pairs(records, 40, near_negatives=0.5) if p.task == 0 and p.label == 0]
    near = [p for p in pairs if p.id[:2] == p.id.split(" | ")[1][:2]]
    assert len(near) == 10
    assert all(topic[p.id.split(" | ")[0]] != topic[p.id.split(" | ")[1]] for p in near)


def test_far_negatives_keep_the_shares_of_the_packages_on_both_sides():
    # 12, 12 and 16 of 40 objects: drawing the other package by its weight alone would shift the shares
    records = synthetic(("aa", "bb"), topics=3, objects=4) + synthetic(("cc",), topics=4, objects=4)
    pool = matching._Pool(records, 0)
    assert pool.apart.sum(0) == pytest.approx(pool.weights, abs=1e-9)
    assert pool.apart.sum(1) == pytest.approx(pool.weights, abs=1e-9)
    names = [name[:2] for name in pool.names]
    assert pool.apart[np.equal.outer(names, names)].sum() == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"per_task": 1}, "per_task"),
        ({"positive": 0.0}, "positive"),
        ({"positive": 1.0}, "positive"),
        ({"same_object": 1.5}, "same_object"),
        ({"near_negatives": -0.1}, "near_negatives"),
        ({"records": synthetic(("aa",))}, "two packages"),
        ({"records": []}, "two packages"),
        ({"records": synthetic(objects=3)}, "two packages"),
        ({"per_task": 10_000}, "too few different pairs"),
    ],
)
def test_impossible_pairs_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        build_pairs(**{"records": synthetic(), "per_task": 10} | change)


# --- Scores -------------------------------------------------------------------------------------------------


def random_answers(seed, n=400):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 6, n), rng.integers(0, 2, n), rng.integers(0, 2, n)


@pytest.mark.parametrize("seed", range(3))
def test_the_score_is_that_of_scikit_learn_per_standard(seed):
    tasks, labels, predictions = random_answers(seed)
    score = competition_score(tasks, labels, predictions)
    for standard, value in enumerate((score.a, score.b)):
        at = tasks % 2 == standard
        assert value == pytest.approx(f1_score(labels[at], predictions[at]), abs=1e-15)
    assert score.mean == (score.a + score.b) / 2


def test_the_score_where_nothing_is_there():
    assert competition_score([0, 1], [0, 1], [0, 1]) == (0, 1, 0.5)
    assert competition_score([0], [True], [True]).b == 0  # no pair of B at all


@pytest.mark.parametrize(
    ("tasks", "labels", "predictions", "words"),
    [
        ([0, 1], [0, 1], [0.2, 0.9], "predictions"),
        ([0, 1], [0, 1], [0, 2], "predictions"),
        ([0, 1], [0, -1], [0, 1], "labels"),
        ([0, 6], [0, 1], [0, 1], "tasks"),
        ([0, 1], [0, 1], [0], "one positive length"),
        ([], [], [], "one positive length"),
        ([[0, 1]], [0, 1], [0, 1], "tasks"),
    ],
)
def test_what_is_no_answer_has_no_score(tasks, labels, predictions, words):
    with pytest.raises(ValueError, match=words):
        competition_score(tasks, labels, predictions)


@pytest.mark.parametrize("decimals", [1, 2, 8])
def test_the_best_threshold_is_the_best_of_all(decimals):
    rng = np.random.default_rng(decimals)
    labels = rng.integers(0, 2, 300)
    p = np.round(np.clip(0.3 * labels + rng.random(300) * 0.7, 0, 1), decimals)
    t, best = best_threshold(labels, p)
    precision, recall, thresholds = precision_recall_curve(labels, p)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert t in p
    assert best == pytest.approx(f1.max(), abs=1e-12)
    assert f1_score(labels, p >= t) == pytest.approx(best, abs=1e-12)
    assert t in thresholds


@pytest.mark.parametrize(
    ("labels", "p", "words"),
    [([], [], "at least one match"), ([0, 0], [0.1, 0.2], "at least one match"), ([0, 1], [0.1], "2 finite"),
     ([0, 1], [0.1, math.nan], "finite"), ([0, 2], [0.1, 0.2], "labels")],
)  # fmt: skip
def test_no_threshold_without_matches(labels, p, words):
    with pytest.raises(ValueError, match=words):
        best_threshold(labels, p)


# --- Batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 16, 1000])
def test_batches_hold_each_example_once(size):
    lengths = np.random.default_rng(0).integers(5, 200, 333)
    batches = bucket_batches(lengths, size, seed=1)
    assert sorted(np.concatenate(batches)) == list(range(333))
    assert max(map(len, batches)) <= size
    assert sum(len(batch) < size for batch in batches) <= math.ceil(333 / (50 * size))


def test_buckets_waste_little_and_differ_from_seed_to_seed():
    lengths = np.random.default_rng(0).integers(5, 200, 2000)
    random = padding_fraction(lengths, bucket_batches(lengths, 16, spread=1))
    bucketed = padding_fraction(lengths, bucket_batches(lengths, 16))
    assert bucketed < 0.1 * random
    first, second = (bucket_batches(lengths, 16, seed=s)[0].tolist() for s in (0, 1))
    assert first != second
    assert bucket_batches(lengths, 16, seed=0)[0].tolist() == first


def test_padding_by_hand():
    assert padding_fraction([2, 4, 6], [[0, 1], [2]]) == pytest.approx(2 / 14)
    with pytest.raises(ValueError, match="batch"):
        padding_fraction([2, 4], [])


@pytest.mark.parametrize(("lengths", "size"), [([], 4), ([3, 4], 0), ([[3], [4]], 2)])
def test_impossible_batches_are_refused(lengths, size):
    with pytest.raises(ValueError, match="lengths|batch_size"):
        bucket_batches(lengths, size)


# --- The network --------------------------------------------------------------------------------------------

SMALL = {"width": 16, "heads": 2, "hidden": 24, "condition_size": 4}
SOURCE, TARGET = pad_tokens([[3, 4, 5], [6]]), pad_tokens([[7, 3], [4, 4, 9, 1]])


def matcher(seed=0, **options):
    return Matcher(20, generator=torch.Generator().manual_seed(seed), **SMALL | options).eval()


def tasks(*k):
    return torch.tensor(k)


@pytest.mark.parametrize("interaction", ["late", "joint"])
@pytest.mark.parametrize("conditioning", [None, "token", "norm", "heads"])
def test_mixed_tasks_give_what_single_tasks_give(conditioning, interaction):
    model = matcher(conditioning=conditioning, interaction=interaction)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    mixed = model(SOURCE, TARGET, tasks(2, 5))
    alone = [model(SOURCE, TARGET, tasks(k, k))[i] for i, k in enumerate((2, 5))]
    torch.testing.assert_close(mixed, torch.stack(alone))
    other = model(SOURCE, TARGET, tasks(0, 1))
    assert torch.allclose(mixed, other) == (conditioning is None)


@pytest.mark.parametrize("interaction", ["late", "joint"])
def test_what_lies_beyond_the_lengths_never_matters(interaction):
    model = matcher(interaction=interaction)
    wide = Tokens(torch.cat([SOURCE.ids, torch.full((2, 3), 19)], 1), SOURCE.lengths)
    spoiled = Tokens(TARGET.ids.masked_fill(TARGET.ids == 0, 13), TARGET.lengths)
    torch.testing.assert_close(model(wide, spoiled, tasks(0, 1)), model(SOURCE, TARGET, tasks(0, 1)))


@pytest.mark.parametrize("interaction", ["late", "joint"])
def test_at_the_start_a_conditional_norm_is_the_blind_model(interaction):
    model = matcher(conditioning="norm", interaction=interaction)
    blind = matcher(conditioning=None, interaction=interaction)
    missing, unexpected = blind.load_state_dict(model.state_dict(), strict=False)
    assert not missing
    assert all("projection" in name or name == "tasks" for name in unexpected)
    for k in range(6):
        torch.testing.assert_close(model(SOURCE, TARGET, tasks(k, k)), blind(SOURCE, TARGET, tasks(k, k)))


def test_the_conditional_norm_adds_the_stated_parameters():
    count = lambda c: sum(p.numel() for p in matcher(conditioning=c).parameters())  # noqa: E731
    norms = 3  # the embedding's and two of the layer
    assert count("norm") - count(None) == 6 * 4 + norms * 2 * 16 * 4
    assert count("token") - count(None) == 6 * 16
    assert count("heads") - count(None) == 5 * (64 + 1)


@pytest.mark.parametrize("interaction", ["late", "joint"])
def test_a_specialised_model_is_plain_and_answers_alike(interaction):
    model = matcher(interaction=interaction)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    for k in range(6):
        plain = model.specialise(k)
        assert plain.tasks is None
        assert not any("projection" in name for name, _ in plain.named_parameters())
        torch.testing.assert_close(
            plain(SOURCE, TARGET, tasks(0, 0)), model(SOURCE, TARGET, tasks(k, k)), atol=1e-5, rtol=1e-5
        )
    with pytest.raises(ValueError, match="specialise"):
        matcher(conditioning="heads").specialise(0)
    with pytest.raises(ValueError, match=r"0\.\.5"):
        model.specialise(6)


def test_a_condition_may_be_given_instead_of_a_task():
    model = matcher()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    given = model(SOURCE, TARGET, tasks(0, 0), condition=model.tasks[[3, 4]])
    torch.testing.assert_close(given, model(SOURCE, TARGET, tasks(3, 4)))
    with pytest.raises(ValueError, match="condition"):
        model(SOURCE, TARGET, tasks(0, 0), condition=torch.zeros(2, 5))
    with pytest.raises(ValueError, match="condition"):
        matcher(conditioning=None)(SOURCE, TARGET, tasks(0, 0), condition=torch.zeros(2, 4))


def test_late_interaction_against_loops():
    generator = torch.Generator().manual_seed(1)
    h, g = (torch.nn.functional.normalize(torch.randn(2, t, 6, generator=generator), dim=-1) for t in (5, 4))
    sizes, others = (5, 2), (3, 4)
    mask, other = (torch.arange(t) < torch.tensor(n)[:, None] for t, n in ((5, sizes), (4, others)))
    got = late_interaction(h, g, mask, other)
    for i in range(2):
        best = [max(float(h[i, a] @ g[i, b]) for b in range(others[i])) for a in range(sizes[i])]
        assert float(got[i]) == pytest.approx(sum(best) / sizes[i], abs=1e-6)


def test_the_joint_sequence_is_source_separator_target():
    text, segments = matching._join(SOURCE, TARGET, 20)
    assert [row[:n].tolist() for row, n in zip(text.ids, text.lengths)] == [[3, 4, 5, 20, 7, 3], [6, 20, 4, 4, 9, 1]]
    assert segments.tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1]]


def test_given_embeddings_stay_as_they_are():
    table = torch.randn(20, 16, generator=torch.Generator().manual_seed(2))
    for interaction in ("late", "joint"):
        model = matcher(embeddings=table, interaction=interaction)
        assert torch.equal(model.encoder.tokens[:20], table)
        assert not model.encoder.tokens.requires_grad
    with pytest.raises(ValueError, match=r"embeddings must have shape \(20, 16\)"):
        matcher(embeddings=table[1:])


@pytest.mark.parametrize(
    ("options", "words"),
    [({"conditioning": "film"}, "conditioning"), ({"interaction": "cross"}, "interaction"), ({"tasks": 0}, "tasks"),
     ({"condition_size": 0}, "condition_size"), ({"width": 15}, "width")],
)  # fmt: skip
def test_impossible_networks_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        matcher(**options)


@pytest.mark.parametrize(
    ("source", "target", "task", "words"),
    [
        (Tokens(SOURCE.ids, torch.tensor([3, 0])), TARGET, tasks(0, 0), "source: lengths"),
        (SOURCE, Tokens(TARGET.ids, torch.tensor([2, 9])), tasks(0, 0), "target: lengths"),
        (SOURCE, TARGET, tasks(0, 6), "task"),
        (SOURCE, TARGET, tasks(-1, 0), "task"),
        (SOURCE, TARGET, torch.tensor([0.0, 1.0]), "task"),
        (SOURCE, TARGET, tasks(0), "batch size"),
        (pad_tokens([[1]]), TARGET, tasks(0, 0), "batch size"),
    ],
)
def test_bad_batches_are_refused(source, target, task, words):
    with pytest.raises(ValueError, match=words):
        matcher()(source, target, task)


# --- Words, training, the record ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy():
    records = synthetic()
    lexicon = Lexicon([" ".join(r.sentences) for r in records], size=200, components=8)
    pairs = build_pairs(records, 30)
    return pairs, lexicon, PairTensors.of(pairs, lexicon)


def test_lexical_cosines_are_those_of_the_vectors(toy):
    pairs, lexicon, _ = toy
    u, v = (lexicon.vectorizer.transform([p[side] for p in pairs[:5]]).toarray() for side in (0, 1))
    np.testing.assert_allclose(lexicon.cosines(pairs[:5])[:, 0], (u * v).sum(1), atol=1e-12)
    same = [Pair(p.source, p.source, 0) for p in pairs[:5]]
    np.testing.assert_allclose(lexicon.cosines(same), 1, atol=1e-9)


def test_words_are_encoded_known_ones_only(toy):
    _, lexicon, _ = toy
    tokens = lexicon.encode(["thing unheard_of THING", "xyzzy"])
    index = lexicon.vectorizer.vocabulary_["thing"]
    assert tokens.lengths.tolist()[1] == 1
    assert tokens.ids[1, 0] == len(lexicon) - 1
    assert (tokens.ids[0] == index).sum() == 2
    table = lexicon.embeddings(8, 5)
    assert table.shape == (len(lexicon), 13)


def test_batches_of_a_task_hold_that_task(toy):
    *_, data = toy
    batches = matching.task_batches(data, 7, seed=0)
    assert all(len(set(data.tasks[batch].tolist())) == 1 for batch in batches)
    assert sorted(np.concatenate(batches)) == list(range(len(data)))


def test_a_few_steps_learn_repeat_themselves_and_leave_the_global_generator_alone(toy):
    _, lexicon, data = toy

    options = SMALL | {"dropout": 0.1, "embeddings": lexicon.embeddings(8, 8)}
    models = [Matcher(len(lexicon), generator=torch.Generator().manual_seed(0), **options) for _ in range(3)]
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    for model, seed in zip(models, (0, 0, 1)):
        fit_matcher(model, data, epochs=12, batch_size=15, lr=5e-3, seed=seed)
    assert torch.equal(torch.rand(3), expected)
    first, again, other = (probabilities(model, data) for model in models)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    labels = data.labels.numpy()
    assert first[labels == 1].mean() - first[labels == 0].mean() > 0.2


def test_a_probability_does_not_depend_on_its_batch(toy):
    _, lexicon, data = toy
    model = Matcher(len(lexicon), **SMALL).eval()
    np.testing.assert_allclose(probabilities(model, data, batch_size=7), probabilities(model, data), atol=1e-6)


def test_a_lexical_judge_learns_what_it_is_told(toy):
    pairs, lexicon, _ = toy
    study = matching.Study(pairs, pairs, lexicon)
    labels = np.array([pair.label for pair in pairs])
    right = {told: ((matching.lexical_judge(study, told)[1] >= 0.5) == labels).mean() for told in matching.TOLD}
    assert right["task"] > right["nothing"]
    train, test = matching.lexical_judge(study, "standard")
    assert np.array_equal(train, test)
    with pytest.raises(ValueError, match="told"):
        matching.lexical_judge(study, "length")


def test_the_bootstrap_resamples_whole_groups():
    tasks, labels, predictions = random_answers(5)
    whole = competition_score(tasks, labels, predictions).mean
    one = matching.bootstrap_scores(np.zeros(400, int), tasks, labels, predictions, rounds=5)
    np.testing.assert_allclose(one, whole)
    many = matching.bootstrap_scores(np.arange(400), tasks, labels, predictions, rounds=400)
    assert many.mean() == pytest.approx(whole, abs=0.01)
    assert 0.01 < many.std() < 0.05
    # the first draw, by hand
    draw = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), 1)[0]
    rows = np.repeat(np.arange(400), draw)
    assert many[0] == pytest.approx(competition_score(tasks[rows], labels[rows], predictions[rows]).mean)


def test_packing_keeps_the_side_of_one_half_and_the_value_to_half_a_step():
    p = np.random.default_rng(0).random(1000)
    back = matching.unpack(matching.pack(p))
    assert np.array_equal(back >= 0.5, p >= 0.5)
    assert np.abs(back - p).max() <= 1 / 512


def test_a_record_of_other_pairs_is_refused(toy):
    pairs, lexicon, _ = toy
    with pytest.raises(ValueError, match="other pairs"):
        matching.Runs(matching.Study(pairs, pairs, lexicon))


# --- Found by `make mutate` -----------------------------------------------------------------------------------


def test_one_pair_without_a_label_among_others_is_refused_in_training_data(tmp_path):
    sohu_tree(tmp_path)
    write_lines(
        tmp_path / SOHU_FOLDERS[2] / SOHU_FILES["train"],
        {"source": "a", "target": "b", "labelA": "1"},
        {"source": "a", "target": "b", "id": "7"},
    )
    with pytest.raises(ValueError, match="an id but no label"):
        read_sohu(tmp_path, "train")


def test_two_packages_are_enough_and_large_topics_weigh_as_thirty_objects():
    records = synthetic(packages=("aa",), topics=1, objects=40) + synthetic(packages=("bb",), topics=1, objects=10)
    pool = matching._Pool(records, 0)
    assert pool.weights.tolist() == [0.75, 0.25]
    assert len(matching._Pool(synthetic(packages=("aa", "bb"), topics=1, objects=4), 0).names) == 2
    with pytest.raises(ValueError, match="topics of two packages with 4 objects"):
        matching._Pool(synthetic(packages=("aa", "bb"), topics=1, objects=3), 0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_none_of_the_matches_may_be_of_one_object(share):
    pairs = build_pairs(synthetic(), 20, same_object=share, near_negatives=share)
    loose = [pair for pair in pairs if pair.task % 2 == 0 and pair.label == 1]
    assert {kind_of(pair) for pair in loose} == {"same object" if share else "same topic"}
    with pytest.raises(ValueError, match=r"positive must be a share inside \(0, 1\)"):
        build_pairs(synthetic(), 20, positive=share)


def test_topics_that_cannot_keep_their_shares_still_have_a_distribution():
    allowed = np.array([[False, True, True], [True, False, False], [True, False, False]])
    for weights in ([0.8, 0.1, 0.1], [0.5, 0.25, 0.25]):
        joint = matching._apart(np.array(weights), allowed)
        assert joint.sum() == pytest.approx(1)
        assert (joint[~allowed] == 0).all()
        assert np.allclose(joint, joint.T)
    assert np.allclose(joint.sum(1), [0.5, 0.25, 0.25])


def test_a_condition_of_another_batch_is_refused():
    with pytest.raises(ValueError, match=r"condition must have shape \(2, 4\), got \(1, 4\)"):
        matcher()(SOURCE, TARGET, tasks(0, 0), condition=torch.zeros(1, 4))


def test_features_of_a_text_with_itself():
    """Products are squares, differences nothing, and the three cosines one, times ten."""
    model, seen = matcher(conditioning=None), []
    model.head.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    model(SOURCE, SOURCE, tasks(0, 1))
    model(SOURCE, TARGET, tasks(0, 1))
    (same, other) = (part.split([16, 16, 3], dim=1) for part in seen)
    assert (same[0] >= 0).all()
    torch.testing.assert_close(same[1], torch.zeros(2, 16))
    torch.testing.assert_close(same[2], torch.full((2, 3), 10.0))
    vectors = [model._encode(text, None)[0].detach() for text in (SOURCE, TARGET)]
    torch.testing.assert_close(other[0], vectors[0] * vectors[1])
    torch.testing.assert_close(other[1], (vectors[0] - vectors[1]).abs())


def test_linear_layers_start_with_the_spread_of_their_fan_in():
    linear = matching._linear(400, 100, torch.Generator().manual_seed(0))
    assert float(linear.weight.detach().std()) == pytest.approx(0.05, rel=0.02)
    assert (linear.bias == 0).all()


def test_the_size_of_a_pair_counts_the_separator(toy):
    *_, data = toy
    source, target = (text.lengths.numpy() for text in (data.source, data.target))
    assert (data.sizes() == source + target + 1).all()


@pytest.mark.parametrize(("warmup", "rise"), [(0.25, 2), (0.0, 1), (0.5, 4)])
def test_the_step_size_rises_and_falls_linearly(toy, monkeypatch, warmup, rise):
    _, lexicon, data = toy
    rules = []
    plain = torch.optim.lr_scheduler.LambdaLR
    monkeypatch.setattr(torch.optim.lr_scheduler, "LambdaLR", lambda o, rule: rules.append(rule) or plain(o, rule))
    small = data.rows(np.concatenate([np.flatnonzero(data.tasks == task)[:5] for task in range(4)]))
    fit_matcher(Matcher(len(lexicon), **SMALL), small, epochs=2, batch_size=5, warmup=warmup)  # 8 steps
    (rule,) = rules
    assert [rule(step) for step in range(rise)] == pytest.approx([(step + 1) / rise for step in range(rise)])
    assert [rule(step) for step in range(rise, 9)] == pytest.approx([(8 - t) / (8 - rise) for t in range(rise, 9)])


def test_what_a_record_says_of_its_answers():
    runs = object.__new__(matching.Runs)
    runs.tasks, runs.labels = np.arange(12) % 6, np.array([1] * 6 + [0] * 6)
    p = np.array([[0.9] * 6 + [0.2] * 6, [0.6, 0.4] * 6])
    runs._record = {"answers": {"one": [matching.pack(row) for row in p]}}
    assert np.allclose(runs.probabilities("one"), p, atol=1 / 512)
    assert runs.accuracies("one").tolist() == [1.0, 0.5]
    assert [score.mean for score in runs.scores("one")] == [
        1.0,
        competition_score(runs.tasks, runs.labels, p[1] > 0.5).mean,
    ]
    assert runs.areas("one").tolist() == [[1.0] * 6, [0.5] * 6]
