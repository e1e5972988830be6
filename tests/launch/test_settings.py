"""The keys of a config: what they name exists where it is used."""

import dataclasses
import inspect

from child_models.recipe import recipe
from child_models.retraining import retraining
from launch.settings import Retrain


def test_the_recipe_of_a_config_is_that_of_retraining():
    fields = {f.name: f.default for f in dataclasses.fields(Retrain)}
    arguments = {
        name: parameter.default
        for factory in (recipe, retraining)
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind == parameter.KEYWORD_ONLY
    }
    for name in ("unsampled", "measure_batch", "place"):  # are not the user's
        del arguments[name]
    # The space takes one of them and the task the other; epochs has no default there.
    assert fields.keys() - arguments.keys() == {"space", "label_smoothing"}
    assert arguments.keys() <= fields.keys()
    differing = {k for k, v in arguments.items() if v != fields[k]}
    assert differing == {"epochs"}
