"""Versions of installed packages, in the order asked for."""

from __future__ import annotations

import numpy as np

from surgeon_debug.package_versions import package_versions


def test_what_is_not_there_has_no_version() -> None:
    found = package_versions(["numpy", "surely-not-a-package", "onnx-surgeon"])
    assert list(found) == ["numpy", "surely-not-a-package", "onnx-surgeon"]
    assert found["numpy"] == np.__version__ and found["surely-not-a-package"] == "" and found["onnx-surgeon"]
