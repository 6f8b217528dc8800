"""Mixtures that need no search, as contestants: one run each, to be judged like the others."""

from __future__ import annotations

from typing import ClassVar

from bimix_tune.errors import ConfigError
from bimix_tune.simplex import Array
from bimix_tune.strategies.base import Setting, Strategy


class TrainingFree(Strategy):
    """Asks for one run, of the mixture that the setting knows by the label of the subclass.

    Raises:
        ConfigError: The setting does not know it.
    """

    label: ClassVar[str]

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if self.label not in setting.known:
            raise ConfigError(
                f"the mixture {self.label!r} is not known here, only {sorted(setting.known)}: "
                "UniMax needs the tokens of every domain, SE, CE, JE and VNE need a corpus"
            )

    def propose(self) -> Array | None:
        if self.curves:
            return None
        space = self.setting.space
        return space.fit_in(space.array(self.setting.known[self.label])).proportions


class Natural(TrainingFree):
    """The natural proportions."""

    label = "natural"


class Uniform(TrainingFree):
    """Equal proportions."""

    label = "uniform"


class UniMax(TrainingFree):
    """Uniform with a cap on epochs (`bimix_tune.strategies.baselines.unimax`)."""

    label = "UniMax"


class ShannonEntropy(TrainingFree):
    """By Shannon entropy, as BiMix has it (arXiv 2405.14908)."""

    label = "SE"


class ConditionalEntropy(TrainingFree):
    """By conditional entropy, as BiMix has it."""

    label = "CE"


class JointEntropy(TrainingFree):
    """By joint entropy, as BiMix has it."""

    label = "JE"


class VonNeumannEntropy(TrainingFree):
    """By von Neumann entropy, as BiMix has it."""

    label = "VNE"
