"""What a model knows of a hierarchy, compared with sets of labels and walks in the taxonomy."""

import random
from itertools import product

import numpy as np
import pytest
import torch

from iirc_train.metrics import METRICS, Outputs, SeenTaxonomy, Tally, confusion_counts, edge_scores
from iirc_train.metrics.distances import MOST_RANKED, distances_of_ranking
from iirc_train.metrics.edges import discovered_ancestors, without_detours

PARENTS = {
    "flat": {0: [], 1: [], 2: []},
    "two levels": {0: [], 3: [0], 1: [], 2: [1], 4: [0], 5: []},
    "subclasses first": {3: [], 1: [3], 0: [1], 2: [1], 5: [3], 4: []},
    "chain": {4: [], 0: [4], 3: [0], 1: [3], 2: [1]},
    "several superclasses": {6: [], 2: [6], 5: [6], 0: [2, 5], 4: [], 1: [4, 5], 3: [0]},
}


def random_parents(seed: int, n: int = 14) -> dict[int, list[int]]:
    generator = random.Random(seed)
    order = generator.sample(range(n), n)
    return {
        name: generator.sample(order[:place], min(place, generator.choice([0, 1, 1, 1, 2])))
        for place, name in enumerate(order)
    }


TAXONOMIES = PARENTS | {f"random {seed}": random_parents(seed) for seed in range(6)}


class Walk:
    """A taxonomy walked in plain Python."""

    def __init__(self, parents: dict[int, list[int]]) -> None:
        self.parents = parents

    def up(self, name: int) -> set[int]:
        return {name}.union(*map(self.up, self.parents[name]))

    def children(self, name: int) -> list[int]:
        return [child for child, parents in self.parents.items() if name in parents]

    def level(self, name: int) -> int:
        return 1 + max(map(self.level, self.parents[name]), default=-1)

    def height(self, name: int) -> int:
        return 1 + max(map(self.height, self.children(name)), default=-1)

    def distance(self, one: int, other: int) -> int:
        root = 1 + max(map(self.height, self.parents))
        return min([self.height(name) for name in self.up(one) & self.up(other)], default=root)

    @property
    def relation(self) -> torch.Tensor:
        n = len(self.parents)
        return torch.tensor([[above in self.up(name) for above in range(n)] for name in range(n)])


@pytest.fixture(params=TAXONOMIES)
def walk(request) -> Walk:
    return Walk(TAXONOMIES[request.param])


def test_levels_heights_and_distances_agree_with_walks(walk):
    taxonomy = SeenTaxonomy.of(walk.relation)
    names = range(len(walk.parents))
    assert taxonomy.levels.tolist() == [walk.level(name) for name in names]
    assert taxonomy.heights.tolist() == [walk.height(name) for name in names]
    assert taxonomy.n_levels == 1 + max(map(walk.level, names))
    one, other = torch.tensor(list(product(names, names))).T
    expected = [walk.distance(*pair) for pair in product(names, names)]
    assert taxonomy.distance(one, other).tolist() == expected
    for n_seen in (len(names), 3):
        seen = taxonomy.seen(n_seen)
        assert torch.equal(seen.ancestors, walk.relation[:n_seen, :n_seen])
        assert torch.equal(seen.levels, taxonomy.levels)
        labels = torch.rand(20, n_seen, generator=torch.Generator().manual_seed(0)) < 0.4
        proper = seen.ancestors.clone().fill_diagonal_(fill_value=False)
        assert torch.equal(seen.count_above(labels), labels.float() @ proper.T.float())
        assert torch.equal(seen.count_below(labels), labels.float() @ proper.float())


def test_a_circle_is_refused():
    with pytest.raises(ValueError, match="ancestor of its own ancestor"):
        SeenTaxonomy.of(torch.ones(3, 3, dtype=torch.bool))


def samples_of(walk: Walk, n_seen: int, n: int = 40) -> Outputs:
    """Return scores with ties, and the labels of random leaves that were seen so far."""
    generator = torch.Generator().manual_seed(n_seen)
    leaves = [name for name in walk.parents if not walk.children(name)]
    chosen = [leaves[place] for place in torch.randint(len(leaves), (n,), generator=generator)]
    scores = torch.randn(n, n_seen, generator=generator).mul(2).round()
    targets = walk.relation[chosen][:, :n_seen]
    return Outputs(scores > 1, targets, scores, None, SeenTaxonomy.of(walk.relation).seen(n_seen))


def values_of(given: Outputs, decision: str = "threshold") -> dict[str, float]:
    tally = Tally(
        given.targets.shape[1], torch.device("cpu"), decision=decision, taxonomy=given.taxonomy
    )
    for start in range(0, len(given.targets), 7):
        part = (values[start : start + 7] for values in given[:3])
        tally.add(Outputs(*part))
    return tally.kept(lambda rows: rows).values()


@pytest.mark.parametrize("n_seen", [None, 3])
def test_distances_of_rankings_agree_with_walks(walk, n_seen):
    n_seen = n_seen or len(walk.parents)
    given = samples_of(walk, n_seen)
    leaves = [name for name in range(n_seen) if not walk.children(name)]
    rows = []
    for scores, targets in zip(given.scores.tolist(), given.targets.tolist(), strict=True):
        own = [leaf for leaf in leaves if targets[leaf]]
        ranked = sorted(leaves, key=lambda leaf: -scores[leaf])
        rows += [[walk.distance(own[0], leaf) for leaf in ranked]] if own else []
    found = values_of(given)
    mistakes = [row[0] for row in rows if row[0]]
    expected = {"mistake_severity": mistakes}
    for k in (1, 5, MOST_RANKED):
        enough = [distance for row in rows for distance in row[:k] if len(leaves) >= k]
        expected[f"hierarchical_distance_top{k}"] = enough
    for name, distances in expected.items():
        if distances:
            assert found[name] == pytest.approx(np.mean(distances))
        else:
            assert name not in found and np.isnan(
                METRICS[name].of_rows(distances_of_ranking(given))
            )


def test_more_classes_than_are_kept_are_ranked():
    n = MOST_RANKED + 12
    walk = Walk({0: [], 1: []} | {name: [name % 2] for name in range(2, n)})
    given = samples_of(walk, n)
    assert distances_of_ranking(given).shape == (40, MOST_RANKED)
    assert 0 < values_of(given)["hierarchical_distance_top20"] < 2


def test_several_labels_of_a_leaf_class_that_no_task_introduces_are_no_mistakes():
    taxonomy = SeenTaxonomy.of(Walk({0: [], 1: [], 2: [], 3: [2]}).relation)
    targets = torch.tensor([[True, True, False, False]])
    scores = torch.tensor([[1.0, 2.0, 0.0, -1.0]])
    rows = distances_of_ranking(Outputs(scores > 1, targets, scores, None, taxonomy))
    assert rows[0, :4].tolist() == [0, 0, 2, -1]


@pytest.mark.parametrize("n_seen", [None, 3])
def test_scores_at_each_level_agree_with_sets_of_labels(walk, n_seen):
    n_seen = n_seen or len(walk.parents)
    given = samples_of(walk, n_seen)
    found = values_of(given)
    for level in range(1 + max(map(walk.level, walk.parents))):
        at = [name for name in range(n_seen) if walk.level(name) == level]
        precise, right, n_true, n_both = [], [], 0, 0
        for row in range(len(given.targets)):
            true, predicted = (
                {name for name in at if labels[row, name]}
                for labels in (given.targets, given.predictions)
            )
            if not true:
                continue
            both = len(true & predicted)
            n_true, n_both = n_true + len(true), n_both + both
            precise.append(both / len(true | predicted) * both / max(len(predicted), 1))
            right.append(max(at, key=lambda name: given.scores[row, name].item()) in true)
        names = [f"level_{level}_{name}" for name in ("modified_jaccard_sim", "recall", "accuracy")]
        if precise:
            expected = [np.mean(precise), n_both / n_true, np.mean(right)]
            assert [found[name] for name in names] == pytest.approx(expected)
        else:
            assert not found.keys() & set(names)


# ------------------------------------------------------------------ discovered edges

DEEP = Walk({0: [], 1: [0], 2: [0], 3: [1], 4: [1], 5: [2], 6: [2], 7: [], 8: [1, 7], 9: [7]})
LEAVES = [3, 4, 5, 6, 8, 9]


def edges_of(predictions: torch.Tensor, n_seen: int = 10) -> dict[str, float]:
    """Return the scores of ten samples of each leaf, with these predictions for each leaf."""
    targets = DEEP.relation[LEAVES].repeat_interleave(10, dim=0)[:, :n_seen]
    predictions = predictions.repeat_interleave(10, dim=0) if len(predictions) == 6 else predictions
    counts = confusion_counts(predictions[:, :n_seen], targets).numpy()
    taxonomy = SeenTaxonomy.of(DEEP.relation).seen(n_seen)
    return edge_scores(counts, targets.sum(dim=0).numpy(), taxonomy)


def test_a_model_that_knows_everything_shows_every_edge():
    found = edges_of(DEEP.relation[LEAVES])
    assert set(found) == {
        f"{pairs}_{score}"
        for pairs in ("edge", "ancestor")
        for score in ("precision", "recall", "f1")
    }
    assert set(found.values()) == {1.0}


def test_a_forgotten_class_hides_its_edges_and_leaves_a_detour():
    predictions = DEEP.relation[LEAVES].clone()
    predictions[:, 1] = False  # above 3, 4 and 8; below 0
    found = edges_of(predictions)
    edges = {(c, p) for c, parents in DEEP.parents.items() for p in parents}
    kept = {(c, p) for c, p in edges if p != 1}
    detours = {(3, 0), (4, 0), (8, 0)}
    assert found["edge_precision"] == pytest.approx(len(kept) / len(kept | detours))
    assert found["edge_recall"] == pytest.approx(len(kept) / len(edges))
    ancestors = {(c, p) for c in DEEP.parents for p in DEEP.up(c) - {c}}
    assert found["ancestor_precision"] == 1.0
    hidden = {pair for pair in ancestors if pair[1] == 1}
    assert found["ancestor_recall"] == pytest.approx(1 - len(hidden) / len(ancestors))


def test_a_class_that_is_taken_for_another_shows_a_wrong_edge():
    predictions = DEEP.relation[LEAVES].clone()
    predictions[LEAVES.index(9), 3] = True
    right = edges_of(DEEP.relation[LEAVES])
    assert edges_of(predictions)["edge_precision"] < right["edge_precision"]
    assert edges_of(predictions)["edge_recall"] == 1.0


@pytest.mark.parametrize("value", [False, True])
def test_a_model_that_predicts_nothing_or_everything_shows_no_edge(value):
    found = edges_of(torch.full((6, 10), value))
    assert found == {"edge_recall": 0.0, "edge_f1": 0.0, "ancestor_recall": 0.0, "ancestor_f1": 0.0}


def test_edges_are_those_among_the_classes_seen():
    assert edges_of(DEEP.relation[LEAVES], n_seen=5)["edge_f1"] == 1.0
    assert edges_of(DEEP.relation[LEAVES], n_seen=1) == {}


def test_discovery_and_detours_agree_with_loops():
    generator = np.random.default_rng(0)
    for n in [6] * 20 + [17]:
        n_samples = generator.integers(0, 9, n)
        counts = generator.integers(0, n_samples[:, None] + 1, (n, n))
        found = discovered_ancestors(counts, n_samples)
        edges = without_detours(found)
        for i, j in product(range(n), range(n)):
            known = n_samples[i] > 0 and n_samples[j] > 0
            shares = (counts[i, j] / n_samples[i], counts[j, i] / n_samples[j]) if known else (0, 0)
            assert found[i, j] == (shares[0] > 0.5 and shares[0] > shares[1])
            by_detour = any(found[i, k] and found[k, j] for k in range(n))
            assert edges[i, j] == (found[i, j] and not by_detour)
