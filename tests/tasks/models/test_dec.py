import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from tasks.gaussians import MixtureConfig
from tasks.models.dec import CENTROID_NOISE, Dec
from tasks.recipes.dec import DecTraining
from tasks.seeds import purpose_seed, torch_generator
from tests.gaussian_fakes import mixture_task

POINTS = MixtureConfig().splits()["train"].features
SEED, DATA_SEED = 7, 3


@pytest.fixture
def network():
    return Dec().build(3, POINTS, SEED, DATA_SEED)


def test_the_papers_network_has_228_parameters(network):
    shapes = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
    assert shapes.pop("centroids") == (3, 12)
    assert sorted(shapes.values()) == [(12,), (12,), (12, 2), (12, 12)]
    assert sum(weight.numel() for weight in network.parameters()) == 228
    assert all(weight.requires_grad for weight in network.parameters())


def test_encoder_weights_start_in_their_ranges(network):
    for layer, fan_in in ((network.encoder[0], 2), (network.encoder[2], 12)):
        weights = torch.cat([layer.weight.flatten(), layer.bias])
        assert 0.8 * fan_in**-0.5 < weights.abs().max() <= fan_in**-0.5


def test_centroids_start_from_k_means_of_the_encoded_points_plus_half_a_normal(network):
    encoded = network.encoder(torch.from_numpy(POINTS)).detach().numpy().astype(np.float64)
    noise = torch.randn(3, 12, generator=torch_generator(SEED, "centroids", DATA_SEED))
    start = (network.centroids.detach() - CENTROID_NOISE * noise).numpy()
    assert CENTROID_NOISE == 0.5
    state = purpose_seed(SEED, "kmeans", DATA_SEED) % 2**32
    best = KMeans(3, n_init=3, random_state=state).fit(encoded)
    nearest = ((encoded[:, None] - start) ** 2).sum(2)
    np.testing.assert_allclose(nearest.min(1).sum(), best.inertia_, rtol=1e-4)
    for cluster in range(3):  # a fixed point of Lloyd's algorithm
        np.testing.assert_allclose(start[cluster], encoded[nearest.argmin(1) == cluster].mean(0), atol=1e-4)


def test_seed_and_data_seed_decide_every_parameter(network):
    state = network.state_dict()
    again = Dec().build(3, POINTS, SEED, DATA_SEED).state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)
    for other in (Dec().build(3, POINTS, SEED + 1, DATA_SEED), Dec().build(3, POINTS, SEED, DATA_SEED + 1)):
        assert not any(torch.equal(state[name], weight) for name, weight in other.state_dict().items())


def test_building_leaves_global_generators_alone():
    torch.manual_seed(11)
    np.random.seed(11)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(11)
    np.random.seed(11)
    Dec().build(3, POINTS, SEED, DATA_SEED)
    assert torch.equal(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])


def test_both_objectives_and_all_edits_start_from_the_same_network():
    clustering, supervised = (mixture_task(DecTraining(objective=objective)) for objective in ("dec", "nll"))
    noisy = clustering.with_noise_in(clustering.splits["train"].ids[:5])
    start = clustering.network(SEED).state_dict()
    for task in (supervised, noisy):
        assert all(torch.equal(start[name], weight) for name, weight in task.network(SEED).state_dict().items())


def test_an_encoder_that_folds_all_points_into_one_still_builds():
    network = Dec(hidden=1).build(3, np.zeros((9, 2), np.float32), 0, 0)
    assert torch.isfinite(network.centroids).all()


def test_log_assignments_stay_finite_far_from_every_centroid(network):
    log_q = network(torch.full((1, 2), 1e15))
    assert torch.isfinite(log_q).all()
    torch.testing.assert_close(log_q.exp().sum(1), torch.ones(1))
