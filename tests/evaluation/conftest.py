"""What the tests of several suites look at: the results of two pipelines, a good and a bad one."""

import pytest

from minisd.evaluation import Judge, Settings, evaluate

from .stubs import SAMPLES, WORLD, Stub


@pytest.fixture(scope="session")
def judge():
    return Judge.load()


@pytest.fixture(scope="session")
def listening(judge):
    """(the stub, its results)"""
    stub = Stub()
    settings = Settings(SAMPLES, steps=7, guidance=2.5, rescale=0.5, sampler="ddim", synthetic=1000)
    return stub, evaluate(stub, judge, WORLD, settings)


@pytest.fixture(scope="session")
def deaf(judge):
    """The results of a pipeline that does not listen and whose autoencoder is blank."""
    stub = Stub(listens=False, blank=True)
    return evaluate(stub, judge, WORLD, Settings(SAMPLES, synthetic=1000))
