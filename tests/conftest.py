"""Settings of the test run: slow tests on request only, TensorFlow without its chatter."""

import os

import pytest

# Read when TensorFlow is first imported, which no test of the light modules does.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Warnings are errors (pyproject.toml); these come from inside other packages and nothing here can prevent them.
NOT_OURS = [
    "ignore:distutils Version classes are deprecated:DeprecationWarning",  # TensorFlow Probability, when imported
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",  # Keras, when it saves weights
]


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config):
    for warning in NOT_OURS:
        config.addinivalue_line("filterwarnings", warning)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--runslow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: runs with --runslow"))
