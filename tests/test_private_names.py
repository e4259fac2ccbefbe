"""Names that other packages do not promise, and that the suite leans on: a failure here explains others."""

from __future__ import annotations

import execnet
import pytest


@pytest.mark.parametrize("name", ["quiet", "json", "storage", "save", "autosave"])
def test_the_session_of_pytest_benchmark_has_the_attribute(pytestconfig, name):
    assert hasattr(pytestconfig._benchmarksession, name)


def test_a_gateway_of_execnet_has_its_process():
    group = execnet.Group()

    gateway = group.makegateway("popen//execmodel=main_thread_only")

    assert gateway._io.popen.pid > 0
    group.terminate(timeout=1.0)
    assert gateway._io.popen.wait(5) is not None
