"""The keys of a config: what they name exists where it is used."""

import dataclasses
import inspect

from child_models.evaluators.from_scratch import from_scratch
from launch.settings import Retrain


def test_the_recipe_of_a_config_is_that_of_from_scratch():
    fields = {f.name: f.default for f in dataclasses.fields(Retrain)}
    arguments = {
        name: parameter.default
        for name, parameter in inspect.signature(from_scratch).parameters.items()
        if parameter.kind == parameter.KEYWORD_ONLY
    }
    # The space takes one of them and the task the other; epochs has no default there.
    assert fields.keys() - arguments.keys() == {"space", "label_smoothing"}
    assert arguments.keys() <= fields.keys()
    differing = {k for k, v in arguments.items() if v != fields[k]}
    assert differing == {"epochs"}
