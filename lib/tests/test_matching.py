"""Tests of explainers.matching: the contest's files, the pairs, the scores, the batches and the network."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from importlib import resources

import numpy as np
import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
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


@pytest.mark.parametrize(("warmup", "rise"), [(0.25, 2), (0.0, 1), (0.5, 4), (0.3, 2), (0.2, 2), (0.875, 7)])
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


def test_lines_of_spaces_and_line_ends_of_windows_are_no_pairs(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_bytes(json.dumps(GOOD | {"labelA": 0}).encode() + b"\r\n\r\n  \t\r\n")
    assert [pair.label for pair in read_pairs(path, 0)] == [0]


def test_a_single_fault_is_named_alone_and_several_are_numbered(tmp_path):
    with pytest.raises(ValueError, match=r"line 1: not JSON \(.*\(char 0\)\)$"):
        read_pairs(write_lines(tmp_path / "a.txt", "?", GOOD), 0)
    with pytest.raises(ValueError, match=r"line 1: .*; also malformed: lines 3, 4$"):
        read_pairs(write_lines(tmp_path / "b.txt", "?", GOOD, "?", "?"), 0)


def test_the_contests_folders_may_be_read_without_their_malformed_lines(tmp_path):
    root = sohu_tree(tmp_path)
    with (root / SOHU_FOLDERS[4] / "train.txt").open("a") as file:
        file.write("?\n")
    with pytest.raises(ValueError, match="line 2"):
        read_sohu(root)
    with pytest.warns(UserWarning, match="1 of 2 lines skipped"):
        pairs = read_sohu(root, skip_malformed=True)
    assert len(pairs) == 6


def test_a_missing_file_is_named_with_its_task(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the part 'valid' of task 'short-short A' should be at .*valid\.txt"):
        read_sohu(sohu_tree(tmp_path, splits=("train",)), "valid")


@pytest.mark.parametrize(
    ("sentence", "kept"),
    [
        ("It has just five words", True),
        ("It has four words", False),
        ("abc def ghi jkl 12345678", True),  # 12 letters of 20 characters
        ("abc def ghi jkl 123456789", False),
    ],
)
def test_a_sentence_has_five_words_and_is_of_letters_to_three_fifths(sentence, kept):
    records = docstring_records([doc("scipy.linalg.xyz", "scipy.linalg", sentence)])
    assert [record.sentences for record in records] == ([(sentence,)] if kept else [])


def test_a_repeat_in_other_letters_is_a_repeat():
    texts = ("This same sentence is inherited by many.", "This Same Sentence is inherited by MANY.")
    docs = [doc(f"scipy.linalg.{name}", "scipy.linalg", text) for name, text in zip(("abc", "xyz"), texts)]
    assert [record.name for record in docstring_records(docs)] == ["scipy.linalg.abc"]


def test_names_are_hidden_in_any_letters():
    assert hide_name("use svd, Svd and SVD", "a.SVD") == "use it, it and it"
    assert hide_name("use SVD", "a.svd") == "use it"


def test_a_topic_whose_hash_is_the_fraction_itself_is_trained_on():
    hashes = ((str(n), hashlib.blake2b(str(n).encode(), digest_size=8).digest()) for n in itertools.count())
    topic, digest = next(pair for pair in hashes if int.from_bytes(pair[1], "big") % 2**11 == 0)  # exact as a float
    fraction = int.from_bytes(digest, "big") / 2**64
    records = [Record(topic, "a", ("b",))]
    assert split_by_topic(records, fraction) == (records, [])
    assert split_by_topic(records, math.nextafter(fraction, 1)) == ([], records)
    with pytest.raises(ValueError, match="fraction must be between 0 and 1, got 0"):
        split_by_topic(records, 0)


@pytest.mark.parametrize(
    ("length", "low", "high"), [(0, (10, 10), (40, 40)), (1, (10, 30), (40, 60)), (2, (30, 30), (60, 60))]
)
def test_texts_end_with_the_sentence_that_reaches_the_lower_bound_and_are_cut_at_the_upper(length, low, high):
    words = [f"w{n}" for n in range(60)]
    assert two_texts(words, length) == (" ".join(words[: low[0]]), " ".join(words[low[0] : sum(low)]))
    assert two_texts(words[: sum(low) - 1], length) is None
    assert two_texts(["a " * 99, "b " * 99], length) == (" ".join("a" * high[0]), " ".join("b" * high[1]))


@pytest.mark.parametrize("options", [{"per_task": 2}, {"per_task": 30, "near_negatives": 0.4, "positive": 0.3}])
def test_every_task_has_the_number_of_pairs_asked_for(options):
    pairs = build_pairs(synthetic(), **options)
    assert [pair.task for pair in pairs] == [task for task in range(6) for _ in range(options["per_task"])]


@pytest.mark.parametrize(("records", "found"), [(synthetic(("aa",)), "aa"), ([], "none")])
def test_what_was_found_in_the_place_of_two_packages_is_said(records, found):
    with pytest.raises(ValueError, match=rf"got packages: {found}$"):
        build_pairs(records, 4)


def topics_of(pairs):
    return Counter(tuple(name.rpartition(".")[0] for name in pair.id.split(" | ")) for pair in pairs)


def draws(records, kind, count):
    rng, pool = np.random.default_rng(0), matching._Pool(records, 0)
    return [pool._pair(kind, 0, rng) for _ in range(count)]


def test_topics_are_drawn_in_proportion_to_their_objects():
    records = synthetic(("aa",), topics=1, objects=24) + synthetic(("bb",), topics=1, objects=8)
    for kind in ("same object", "same topic"):
        assert topics_of(draws(records, kind, 1000))["aa.t0", "aa.t0"] == pytest.approx(750, abs=50)  # 3.6 sigma


def test_near_negatives_are_drawn_in_proportion_to_their_objects():
    """Topics of 16, 8 and 8 objects in one package, and a lonely one that has no neighbour."""
    records = synthetic(("aa",), topics=1, objects=16) + synthetic(("bb",), topics=1, objects=8)
    records += [record for record in synthetic(("aa",), topics=3, objects=8) if record.topic != "aa.t0"]
    found = topics_of(draws(records, "same package", 1200))
    shares = {(0, 1): 1 / 4, (0, 2): 1 / 4, (1, 0): 1 / 6, (2, 0): 1 / 6, (1, 2): 1 / 12, (2, 1): 1 / 12}
    assert len(found) == 6
    for (one, other), share in shares.items():
        assert found[f"aa.t{one}", f"aa.t{other}"] == pytest.approx(1200 * share, abs=50)
    with pytest.raises(ValueError, match="near_negatives need a package with two topics"):
        build_pairs(synthetic(topics=1), 10, near_negatives=0.5)


def test_the_other_object_of_a_topic_is_any_other_one():
    """Of 4 objects the second lies 1, 2 or 3 places behind the first, each as often."""
    places = [[int(name[-1]) for name in pair.id.split(" | ")] for pair in
              draws(synthetic(("aa", "bb"), topics=1, objects=4), "same topic", 1500)]  # fmt: skip
    steps = Counter((j - i) % 4 for i, j in places)
    assert steps[0] == 0
    assert all(steps[step] == pytest.approx(500, abs=65) for step in (1, 2, 3))


def test_topics_of_unequal_weight_keep_their_shares():
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    joint = matching._apart(weights, ~np.eye(4, dtype=bool))
    np.testing.assert_allclose(joint.sum(0), weights, atol=1e-9)
    np.testing.assert_allclose(joint.sum(1), weights, atol=1e-9)
    # u_s u_t off the diagonal: products of opposite cells agree
    assert joint[0, 1] * joint[2, 3] == pytest.approx(joint[0, 2] * joint[1, 3])


@pytest.mark.parametrize("name", [None, "7", "numpy.fft.fft |"])
def test_only_pairs_that_name_two_objects_have_a_kind(name):
    with pytest.raises(ValueError, match="kind_of takes a pair of build_pairs"):
        kind_of(Pair("a", "b", 0, 1, name))


# --- Words, by hand


def test_word_weights_by_hand(recwarn):
    """Both words in both texts, so that the inverse document frequency is 1: weights are 1 + log of the count."""
    lexicon = Lexicon(["one one one LinearSVC", "one linear svc"], components=2)
    assert sorted(lexicon.vectorizer.vocabulary_) == ["linear", "one", "svc"]
    row = np.array([1, 1 + math.log(3), 1])
    np.testing.assert_allclose(
        lexicon.vectorizer.transform(["one SVC one linear one"]).toarray()[0], row / np.hypot(row[1], 2**0.5)
    )
    assert not [str(warning.message) for warning in recwarn]


def test_pairs_as_tensors_hold_both_texts(toy):
    pairs, lexicon, data = toy
    for side, found in enumerate((data.source, data.target)):
        expected = lexicon.encode([pair[side] for pair in pairs])
        assert torch.equal(found.ids, expected.ids)


def test_of_equally_frequent_words_the_first_in_the_alphabet_are_kept():
    """NumPy's sort leaves ties in an order that depends on the processor's instructions."""
    names = ["".join(letters) for letters in itertools.islice(itertools.product("abcdefghij", repeat=3), 500)]
    texts = [" ".join([*names[::-1], "zzz"]), "zzz " + " ".join(names[400:])]
    vocabulary = Lexicon(texts, size=350, components=2).vectorizer.vocabulary_
    assert list(vocabulary) == sorted([*names[:249], *names[400:], "zzz"])
    assert list(vocabulary.values()) == list(range(350))


def random_texts(words=300, texts=80, seed=0):
    rng = np.random.default_rng(seed)
    names = ["".join(letters) for letters in itertools.islice(itertools.product("abcdefgh", repeat=4), words)]
    return [" ".join(rng.choice(names, 30)) for _ in range(texts)]


def test_the_topics_are_a_truncated_svd_of_the_word_weights():
    texts = random_texts()
    lexicon = Lexicon(texts, components=5, seed=3)
    reference = TruncatedSVD(5, n_iter=3, random_state=3).fit(lexicon.vectorizer.transform(texts))
    np.testing.assert_allclose(lexicon.lsa.components_, reference.components_, atol=1e-9)


def test_token_vectors_are_topics_of_unit_size_and_random_words_weighted_by_rarity():
    texts = [*random_texts(), *["aaaa aaab"] * 80]
    lexicon = Lexicon(texts, components=5)
    table = lexicon.embeddings(4, 3000, seed=1).double().numpy()
    topic, word = table[:-1, :4], table[:-1, 4:]
    np.testing.assert_allclose(topic.T @ topic / len(topic), np.eye(4), atol=1e-5)  # orthogonal, mean square 1
    np.testing.assert_allclose(
        topic / topic[0], (lexicon.lsa.components_[:4] / lexicon.lsa.components_[:4, :1]).T, rtol=1e-4
    )
    idf = lexicon.vectorizer.idf_
    np.testing.assert_allclose(np.sqrt((word**2).mean(1)), idf / idf.mean(), rtol=0.06)  # 4.6 sigma
    assert np.sqrt((table[-1] ** 2).mean()) == pytest.approx(1, rel=0.06)
    assert abs(np.corrcoef(word[:2])[0, 1]) < 0.1


def test_a_lexicon_holds_6000_words_and_128_topics_and_makes_vectors_of_32_and_64_unless_told_otherwise():
    names = ["".join(letters) for letters in itertools.islice(itertools.product("abcdefghijklmnopqrs", repeat=3), 6100)]
    lexicon = Lexicon([" ".join(names[start::150]) for start in range(150)])
    assert len(lexicon) == 6000 + 1
    assert lexicon.lsa.components_.shape == (128, 6000)
    assert torch.equal(lexicon.embeddings(), lexicon.embeddings(32, 64, seed=0))


# --- Scores and batches, at the borders


def test_labels_of_two_are_no_labels():
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, got values from 0 to 2"):
        competition_score([0, 1], [0, 2], [0, 1])


def test_thresholds_by_hand():
    assert best_threshold([1], [0.3]) == (0.3, 1.0)
    assert best_threshold([1, 0, 1], [0.9, 0.5, 0.1]) == (0.1, 0.8)  # F1 2/3, 1/2 and 4/5


def test_the_pools_of_batches_are_sorted_and_ties_keep_the_order_of_the_shuffle():
    lengths = np.arange(400) % 2
    (plain,) = bucket_batches(lengths, 400, spread=1)
    (bucketed,) = bucket_batches(lengths, 400, spread=2)
    assert bucketed.tolist() == [*plain[lengths[plain] == 0], *plain[lengths[plain] == 1]]
    assert plain.tolist() == np.random.default_rng(0).permutation(400).tolist()


def test_a_pool_has_fifty_batches_unless_told_otherwise():
    lengths = np.random.default_rng(0).permutation(300)
    default, spelled = (bucket_batches(lengths, 2, **options) for options in ({}, {"spread": 50}))
    assert np.array_equal(default, spelled)
    with pytest.raises(ValueError, match="batch_size and spread must be positive, got 2 and 0"):
        bucket_batches(lengths, 2, spread=0)


# --- The network, by hand


def test_a_network_has_the_stated_size_unless_told_otherwise():
    options = {"tasks": 6, "conditioning": "norm", "interaction": "late", "condition_size": 16}
    plain, spelled = (Matcher(20, *sizes, **given, generator=torch.Generator().manual_seed(0)).state_dict()
                      for sizes, given in (((), {}), ((1, 96, 4), options)))  # fmt: skip
    assert plain.keys() == spelled.keys()
    assert all(torch.equal(plain[name], spelled[name]) for name in plain)


def test_a_network_may_have_one_task_and_a_joint_one_has_two_segments():
    model = matcher(tasks=1, interaction="joint")
    assert model(SOURCE, TARGET, tasks(0, 0)).shape == (2,)
    assert model.encoder.segments.shape == (2, 16)
    with pytest.raises(ValueError, match="task must be a row"):
        model(SOURCE, TARGET, tasks(0, 1))


@pytest.mark.parametrize("interaction", ["late", "joint"])
@pytest.mark.parametrize("conditioning", [None, "token", "norm", "heads"])
def test_every_trainable_weight_takes_part(conditioning, interaction):
    model = matcher(conditioning=conditioning, interaction=interaction)
    model(SOURCE, TARGET, tasks(2, 5)).sum().backward()
    assert [name for name, p in model.named_parameters() if (p.grad is None) == p.requires_grad] == []


@pytest.mark.parametrize(
    ("options", "size"), [({"conditioning": "norm", "condition_size": 100}, 100), ({"conditioning": "token"}, 16)]
)
def test_task_vectors_start_with_length_one_in_the_mean(options, size):
    vectors = matcher(tasks=300, **options).tasks.detach()
    assert vectors.shape == (300, size)
    assert vectors.square().sum(1).mean().item() == pytest.approx(1, rel=0.1)


def test_features_are_products_differences_and_three_cosines_of_averages_and_tokens():
    model, seen = matcher(conditioning=None), []
    model.head.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    model(SOURCE, TARGET, tasks(0, 1))
    for i, features in enumerate(seen[0].double()):
        h, g = (model.encode(Tokens(text.ids[i : i + 1, :n], text.lengths[i : i + 1]))[0][0].detach().double()
                for text, n in ((SOURCE, (3, 1)[i]), (TARGET, (2, 4)[i])))  # fmt: skip
        u, v = h.mean(0), g.mean(0)
        table = [[float(a @ b / a.norm() / b.norm()) for b in g] for a in h]
        met = [np.max(table, axis=1).mean(), np.max(table, axis=0).mean()]
        cosines = torch.tensor([float(u @ v / u.norm() / v.norm()), *met]).double()
        torch.testing.assert_close(features, torch.cat([u * v, (u - v).abs(), 10 * cosines]), atol=1e-5, rtol=1e-4)


def test_the_joint_head_sees_the_average_of_the_real_tokens():
    model, seen = matcher(conditioning=None, interaction="joint"), []
    source, target = pad_tokens([[3, 4, 5], [6]]), pad_tokens([[7, 3, 8], [4]])  # 7 tokens, and 3
    model.head.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    model(source, target, tasks(0, 0))
    for i, (row, parts) in enumerate((([3, 4, 5, 20, 7, 3, 8], [0] * 4 + [1] * 3), ([6, 20, 4], [0, 0, 1]))):
        hidden, _ = model.encode(pad_tokens([row]), segments=torch.tensor([parts]))
        torch.testing.assert_close(seen[0][i], hidden[0].detach().mean(0), atol=1e-5, rtol=1e-4)


def test_texts_of_unequal_lengths_are_joined():
    text, segments = matching._join(pad_tokens([[3, 4, 5], [6]]), pad_tokens([[7, 3, 8], [4]]), 20)
    assert text.lengths.tolist() == [7, 3]
    assert [row[:n].tolist() for row, n in zip(text.ids, text.lengths)] == [[3, 4, 5, 20, 7, 3, 8], [6, 20, 4]]
    assert segments.shape == text.ids.shape == (2, 7)
    text, _ = matching._join(pad_tokens([[6], [3, 4, 5]]), pad_tokens([[4], [7, 3, 8]]), 20)
    assert [row[:n].tolist() for row, n in zip(text.ids, text.lengths)] == [[6, 20, 4], [3, 4, 5, 20, 7, 3, 8]]


@pytest.mark.parametrize("segments", [None, torch.tensor([[0, 0, 1], [0, 1, 1]])])
def test_a_task_token_is_added_to_every_token_vector(segments):
    interaction = "late" if segments is None else "joint"
    model, plain = (matcher(conditioning=c, interaction=interaction) for c in ("token", None))
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if name != "tasks"})
    vector = torch.randn(16, generator=torch.Generator().manual_seed(5))
    plain.encoder.tokens.data += vector
    got, mask = model.encode(SOURCE, vector.expand(2, -1), segments)
    want, _ = plain.encode(SOURCE, None, segments)
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    torch.testing.assert_close(got[mask], want[mask], atol=1e-5, rtol=1e-4)


# --- Training, by hand


def state(model):
    return torch.cat([value.ravel() for value in model.state_dict().values()])


@pytest.mark.parametrize("conditioning", [None, "norm"])
def test_training_is_adamw_written_out(toy, conditioning):
    """Against the loop that anyone would write: 12 steps of one task each, of which 3 climb; with dropout."""
    _, lexicon, data = toy
    options = SMALL | {"dropout": 0.2, "conditioning": conditioning, "embeddings": lexicon.embeddings(8, 8)}
    model, peer = (Matcher(len(lexicon), generator=torch.Generator().manual_seed(0), **options) for _ in range(2))
    fit_matcher(model.eval(), data, epochs=2, batch_size=30, lr=5e-3, warmup=0.25, seed=3)
    optimizer = torch.optim.AdamW([p for p in peer.parameters() if p.requires_grad], lr=5e-3)
    batches = [batch for epoch in (0, 1) for batch in matching.task_batches(data, 30, seed=3000 + epoch)]
    assert len(batches) == 12
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for step, batch in enumerate(batches):
            optimizer.param_groups[0]["lr"] = 5e-3 * ((step + 1) / 3 if step < 3 else (12 - step) / 9)
            part = data.rows(batch)
            logits = peer(part.source, part.target, part.tasks)
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(logits, part.labels).backward()
            optimizer.step()
    torch.testing.assert_close(state(model), state(peer), atol=1e-4, rtol=1e-3)
    assert not model.training


def test_training_takes_the_stated_steps_unless_told_otherwise(toy):
    _, lexicon, data = toy
    data = PairTensors(data.source, data.target, torch.zeros_like(data.tasks), data.labels)  # 180 of one task
    plain, spelled = (Matcher(len(lexicon), generator=torch.Generator().manual_seed(0), **SMALL) for _ in range(2))
    fit_matcher(plain, data)
    fit_matcher(spelled, data, epochs=3, batch_size=50, lr=2e-3, warmup=0.1, seed=0)
    assert torch.equal(state(plain), state(spelled))


def test_training_may_be_all_warm_up(toy):
    _, lexicon, data = toy
    model = Matcher(len(lexicon), **SMALL)
    assert fit_matcher(model, data.rows(range(4)), epochs=1, batch_size=2, warmup=1.0) is model


def test_training_wakes_no_accelerator(toy, monkeypatch):
    _, lexicon, data = toy
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *given: pytest.fail("asked"))
    fit_matcher(Matcher(len(lexicon), **SMALL), data.rows(range(4)), epochs=1)


def spread_out(model, seed=0):
    """Give all weights that are trained a size at which tasks differ, and answers are not all near 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.3, generator=generator)
    model.head[-1].weight.data /= 5
    model.head[-1].bias.data.zero_()
    return model.eval()


def test_probabilities_under_a_condition_are_those_of_its_task(toy):
    _, lexicon, data = toy
    model = spread_out(Matcher(len(lexicon), **SMALL))
    all_of_four = PairTensors(data.source, data.target, torch.full_like(data.tasks, 4), data.labels)
    got = probabilities(model, data, condition=model.tasks[4])
    np.testing.assert_allclose(got, probabilities(model, all_of_four), atol=1e-6)
    assert np.abs(got - probabilities(model, data)).max() > 0.01


@pytest.mark.parametrize("told", ["nothing", "standard", "task"])
def test_a_lexical_judge_is_a_regression_per_group_of_training_pairs(toy, told):
    pairs, lexicon, _ = toy
    study = matching.Study(pairs[::2], pairs[1::3], lexicon)
    group = {"nothing": lambda k: 0, "standard": lambda k: TASKS[k][-1], "task": lambda k: k}[told]
    fitted = {}
    for key in {group(k) for k in range(6)}:
        inside = [pair for pair in study.train if group(pair.task) == key]
        regression = LogisticRegression(C=100)
        fitted[key] = regression.fit(lexicon.cosines(inside), [pair.label for pair in inside])
    for got, part in zip(matching.lexical_judge(study, told), (study.train, study.test)):
        cosines = lexicon.cosines(part)
        want = [fitted[group(pair.task)].predict_proba(c[None])[0, 1] for pair, c in zip(part, cosines)]
        np.testing.assert_allclose(got, want, atol=1e-9)


def test_a_lexical_judge_needs_training_pairs_of_every_group_that_it_judges(toy):
    pairs, lexicon, _ = toy
    few = [pair for pair in pairs[1::3] if pair.task < 4]
    train, test = matching.lexical_judge(matching.Study(pairs[::2], few, lexicon), "task")
    assert len(test) == len(few)
    assert np.array_equal(train, matching.lexical_judge(matching.Study(pairs[::2], pairs, lexicon), "task")[0])
    with pytest.raises(ValueError, match=r"no training pairs for the groups \[4, 5\] of the test pairs"):
        matching.lexical_judge(matching.Study(few, pairs[::2], lexicon), "task")


def test_the_bootstrap_draws_2000_sets_unless_told_otherwise():
    assert matching.bootstrap_scores([0, 1], [0, 1], [1, 1], [1, 0]).shape == (2000,)


# --- The study


@pytest.fixture(scope="module")
def study():
    """A few training pairs, and for each kind and length 65 test pairs of either standard where there are any."""
    records = synthetic()
    lexicon = Lexicon([" ".join(record.sentences) for record in records], components=32)
    test = [
        Pair(records[n].sentences[0], records[(n * 5 + task) % 72].sentences[1], task, label, f"o{n} | {other}{n}")
        for n in range(65)
        for task in range(6)
        for label, other in ((1, "o"), (1 - task % 2, "p"), (0, "q"))[: 3 - task % 2]
    ]
    return matching.Study(build_pairs(records, 4), test, lexicon)


def test_a_study_trains_on_some_topics_tests_on_others_and_counts_the_words_of_the_former(monkeypatch):
    monkeypatch.setattr(matching, "build_pairs", lambda records, per_task, *, seed: (records, per_task, seed))
    monkeypatch.setattr(matching, "Lexicon", lambda texts: texts)
    records = synthetic(tuple("abcdefgh"), objects=2, sentences=10)
    train, test = split_by_topic(records)
    beginnings = [" ".join(record.sentences[:8]) for record in train]
    of = matching.Study.of
    assert of(records) == matching.Study((train, 600, 0), (test, 500, 1), beginnings)
    assert of(records, per_task=7, test_per_task=5, seed=4) == matching.Study((train, 7, 4), (test, 5, 5), beginnings)


def test_a_scarce_study_keeps_the_first_training_pairs_of_each_task(study):
    scarce = study.scarce(3)
    assert [pair.task for pair in scarce.train] == [task for task in range(6) for _ in range(3)]
    assert scarce.train[3:6] == [pair for pair in study.train if pair.task == 1][:3]
    assert (scarce.test, scarce.lexicon) == (study.test, study.lexicon)


def test_the_fingerprint_has_16_digits_and_sees_every_label(study):
    assert re.fullmatch("[0-9a-f]{16}", study.fingerprint())
    changed = [*study.test[:-1], study.test[-1]._replace(label=1)]
    prints = {study.fingerprint(), matching.Study(study.train, changed, study.lexicon).fingerprint(),
              matching.Study(study.test, study.train, study.lexicon).fingerprint(),
              matching.Study(list(study.train), list(study.test), study.lexicon).fingerprint()}  # fmt: skip
    assert len(prints) == 3


def stated(study, seed, **options):
    """The network of the chapter, spelled out: one layer of width 96."""
    sizes = {"layers": 1, "width": 96, "heads": 4, "hidden": 96, "gain": 0.5, "dropout": 0.1} | options
    generator = torch.Generator().manual_seed(seed)
    return Matcher(len(study.lexicon), embeddings=study.lexicon.embeddings(32, 64), generator=generator, **sizes)


@pytest.mark.parametrize(
    ("way", "conditioning"),
    [("blind", None), ("task token", "token"), ("conditional norm", "norm"), ("six heads", "heads")],
)
def test_the_networks_of_the_study_differ_in_how_they_are_told_the_task_only(study, way, conditioning):
    got, want = study.matcher(way, 5), stated(study, 5, conditioning=conditioning)
    assert got.conditioning == conditioning
    assert got.encoder.stack.options == want.encoder.stack.options
    assert torch.equal(state(got), state(want))


def test_a_study_fits_one_network_with_the_epochs_asked_for(study):
    for given, epochs in (({}, 3), ({"epochs": 1}, 1)):
        (model,) = study.fit("task token", 2, **given)
        peer = fit_matcher(stated(study, 2, conditioning="token"), study.train_data, epochs=epochs, seed=2)
        assert torch.equal(state(model), state(peer))


def test_six_models_see_one_task_each_with_the_epochs_asked_for(study):
    models = study.fit("six models", 2, epochs=1)
    assert len(models) == 6
    for task in (0, 5):
        pairs = [pair for pair in study.train if pair.task == task]
        data = PairTensors.of(pairs, study.lexicon)
        peer = fit_matcher(stated(study, 2, conditioning=None), data, epochs=1, seed=2)
        torch.testing.assert_close(state(models[task]), state(peer), atol=1e-5, rtol=1e-4)


def test_each_test_pair_is_asked_of_the_model_of_its_task_or_of_the_only_one(study):
    small = matching.Study(study.train, study.test[::37], study.lexicon)
    models = [spread_out(small.matcher("blind", 0), seed) for seed in range(6)]
    alone = [probabilities(model, small.test_data) for model in models]
    want = [alone[pair.task][i] for i, pair in enumerate(small.test)]
    np.testing.assert_allclose(small.ask(models), want, atol=1e-6)
    np.testing.assert_allclose(small.ask(models[3:4]), alone[3], atol=1e-6)
    assert {pair.task for pair in small.test} == set(range(6))
    assert np.abs(alone[0] - alone[1]).max() > 0.01


@pytest.mark.parametrize("topical", [None, 10])
def test_the_gain_ratio_by_loops(topical):
    model = spread_out(Matcher(20, 2, 40, 2, condition_size=4))
    norms = [model.encoder.norm]
    for layer in model.encoder.stack.layers:
        norms += [layer.attention_norm, layer.feedforward_norm]
    got = matching.gain_ratio(model) if topical is None else matching.gain_ratio(model, topical)
    cut = 32 if topical is None else topical
    assert got.shape == (5, 6)
    for i, norm in enumerate(norms):
        weight, projection = norm.weight.detach().numpy(), norm.weight_projection.detach().numpy()
        for task, vector in enumerate(model.tasks.detach().numpy()):
            gain = [weight[d] + sum(projection[d] * vector) for d in range(40)]
            want = (sum(gain[:cut]) / cut) / (sum(gain[cut:]) / (40 - cut))
            assert got[i, task] == pytest.approx(want, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("length", [0, 2])
def test_a_dial_turns_one_standard_into_the_other(study, length):
    model = spread_out(Matcher(len(study.lexicon), **SMALL))
    found = matching.dial(study, model, length, (0, 0.25, 1, 1.5))
    assert tuple(found) == ("same object", "same topic", "other package")
    loose, strict = (model.tasks.detach()[TASKS.index(f"{matching.LENGTHS[length]} {standard}")] for standard in "AB")
    for kind, (start, quarter, end, beyond) in found.items():
        pairs = [p for p in study.test if TASKS[p.task].startswith(matching.LENGTHS[length]) and kind_of(p) == kind]
        assert len(pairs) > 60
        data = PairTensors.of(pairs[:60], study.lexicon)
        for got, task in ((start, 2 * length), (end, 2 * length + 1)):
            asked = PairTensors(data.source, data.target, torch.full((60,), task), data.labels)
            np.testing.assert_allclose(got, probabilities(model, asked), atol=1e-5)
        for got, vector in ((quarter, 0.75 * loose + 0.25 * strict), (beyond, 1.5 * strict - 0.5 * loose)):
            np.testing.assert_allclose(got, probabilities(model, data, condition=vector), atol=1e-5)
        assert np.abs(start - end).max() > 0.01


# --- The record


class Noting:
    """In the place of a study: says what it would have fitted."""

    per_task = None

    def fit(self, way, seed):
        return way, seed, self.per_task

    def scarce(self, per_task):
        scarce = Noting()
        scarce.per_task = per_task
        return scarce


def test_the_experiments_are_the_ways_with_800_pairs_a_task_and_some_with_200():
    runs = matching.experiments()
    assert all(runs[way](Noting(), 3) == (way, 3, None) for way in matching.WAYS)
    few = {f"{way}, 200 pairs": way for way in ("blind", "six models", "conditional norm")}
    assert all(runs[name](Noting(), 3) == (way, 3, 200) for name, way in few.items())
    assert set(runs) == {*matching.WAYS, *few, "one sequence"}
    assert matching.PER_TASK == 800


def test_the_record_holds_every_experiment_seed_and_setting_of_the_dial():
    source = resources.files("explainers").joinpath("assets", matching.RECORD)
    record = json.loads(source.read_text(encoding="utf-8"))
    assert set(record["answers"]) == set(matching.experiments())
    assert {len(answers) for answers in record["answers"].values()} == {len(matching.SEEDS)}
    assert sorted(matching.SEEDS) == [0, 1, 2, 3, 4]
    assert np.shape(record["dial"]["same topic"]) == (5, 3, len(matching.DIAL))
    np.testing.assert_allclose(matching.DIAL, np.linspace(-0.5, 1.5, 21), atol=1e-12)


def test_one_sequence_is_a_joint_network_of_two_layers(study, monkeypatch):
    monkeypatch.setattr(matching, "fit_matcher", lambda model, data, *, seed: (model, data, seed))
    ((model, data, seed),) = matching.experiments()["one sequence"](study, 4)
    want = stated(study, 4, layers=2, interaction="joint", conditioning="norm")
    assert (data, seed, model.interaction, model.conditioning) == (study.train_data, 4, "joint", "norm")
    assert model.encoder.stack.options == want.encoder.stack.options
    assert torch.equal(state(model), state(want))
