"""Settings: what is refused, and how steps are shared among stages."""

import pytest

from diffrender.fit import FitSettings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps must be a whole number of at least 0; got -1"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"edges": "odd"}, "edges must be 'even' or 'driven'; got 'odd'"),
        ({"topology": "any"}, "topology must be 'fixed' or 'free'; got 'any'"),
        ({"start": "cube"}, "start must be 'hull' or 'sphere'; got 'cube'"),
        ({"appearance": "paint"}, "appearance must be 'vertex' or 'texture'; got 'paint'"),
        ({"sheen": -1}, "sheen must be a whole number of at least 0; got -1"),
        ({"sheen": 25}, "sheen must be at most 24; got 25"),
        ({"texture_size": 8}, "texture_size must be a whole number of at least 16; got 8"),
        ({"image_sizes": ()}, "image_sizes must hold one size for each stage; got none"),
        ({"image_sizes": (4,)}, "image_sizes must be a whole number of at least 8; got 4"),
        ({"views_per_step": 0}, "views_per_step must be a whole number of at least 1; got 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be a whole number of at least 1"),
        ({"turntable_frames": -1}, "turntable_frames must be a whole number of at least 0"),
        ({"mesh_cells": 7}, "mesh_cells must be a whole number of at least 8; got 7"),
    ],
)
def test_wrong_settings_are_refused_with_a_word_on_what_is_expected(change, message):
    with pytest.raises(ValueError, match=message):
        FitSettings(**change)


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 700])
def test_stages_share_all_steps_and_the_coarse_ones_get_most(steps):
    shares = FitSettings(steps=steps, image_sizes=(10, 20, 40), mesh_cells=64).stage_steps
    assert sum(shares) == steps
    if steps == 700:
        assert shares == [400, 200, 100]


def test_a_texture_has_a_stage_of_its_own_on_larger_images():
    settings = FitSettings(steps=80, image_sizes=(10, 20), appearance="texture")
    assert settings.stage_sizes == [10, 20, 50]
    assert settings.stage_steps == [40, 20, 20]
    assert FitSettings(image_sizes=(10, 20)).stage_sizes == [10, 20]
