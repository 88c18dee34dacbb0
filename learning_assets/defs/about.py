"""What the page of every asset says besides the asset's own words: its owners, and its code.

The code is where it is installed, so that the page leads to what really runs.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import dagster as dg


@contextmanager
def _quietly() -> Iterator[None]:
    """Code references are in beta in name only, and nobody can act on the warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _BETA, dg.BetaWarning)
        yield


_BETA = ".*`(LocalFileCodeReference|CodeReferencesMetadataValue|with_source_code_references)`"


def with_about(assets: Sequence[Any], owners: Sequence[str]) -> list[Any]:
    """The assets with these owners where they name none, and with references to their code."""
    owned = dg.map_asset_specs(lambda spec: _owned(spec, owners), assets)
    with _quietly():
        return list(dg.with_source_code_references(owned))


def _owned(spec: dg.AssetSpec, owners: Sequence[str]) -> dg.AssetSpec:
    return spec if spec.owners else spec.replace_attributes(owners=owners)


def code_of(module: ModuleType) -> Mapping[str, Any]:
    """The reference to a module, as metadata of an asset that runs no code of its own."""
    with _quietly():
        first = dg.LocalFileCodeReference(file_path=inspect.getfile(module), line_number=1)
        references = dg.CodeReferencesMetadataValue(code_references=[first])
    return {"dagster/code_references": references}
