"""At which learning rate training goes: functions of `config.Training` alone."""

import keras

from iwae.config import Training


def learning_rate(settings: Training, epoch: int) -> float:
    """Learning rate of an epoch, counted from 0, under a schedule that goes by epochs.

    "burda": stage i = 0, 1, ... lasts 3^i epochs at learning_rate * 10^(-i/7) (Burda et al. 2015, section 5).
    "multistep": learning_rate times gamma for each of the milestones that has been reached.
    """
    if settings.schedule == "burda":
        stage = next(i for i in range(epoch + 1) if epoch < (3 ** (i + 1) - 1) // 2)
        return settings.learning_rate * 10 ** (-stage / 7)
    if settings.schedule == "multistep":
        return settings.learning_rate * settings.gamma ** sum(epoch >= milestone for milestone in settings.milestones)
    return settings.learning_rate


def cosine(settings: Training, updates: int) -> keras.optimizers.schedules.CosineDecay:
    """Learning rate by update under schedule "cosine", with `updates` updates an epoch; zero after the last one."""
    warmup = settings.warmup_epochs * updates
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else settings.learning_rate,
        decay_steps=settings.passes * updates - warmup,
        warmup_target=settings.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
